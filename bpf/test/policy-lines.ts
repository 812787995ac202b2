// NetworkPolicies for tests, in few words.
import type { NetworkPolicyRow } from '../../src/core/rows.ts';
import { parseNetworkPolicy } from '../../src/secure/policy/parse-network-policy.ts';

/** A policy from its spec; throws when it has a problem. */
export function networkPolicy(
  name: string,
  spec: Record<string, unknown>,
  options: { namespace?: string; staged?: boolean } = {},
): NetworkPolicyRow {
  const { row, problems } = parseNetworkPolicy({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: {
      name,
      namespace: options.namespace ?? 'default',
      ...(options.staged ? { annotations: { 'weir.dev/enforcement': 'staged' } } : {}),
    },
    spec,
  });
  if (row === undefined || problems.length > 0) throw new Error(problems.join('; '));
  return row;
}

/** Lets `from` reach the pods with label app=`to` on a TCP port; everybody else is shut out. */
export function allowIngress(name: string, to: string, from: string, port: number, protocol = 'TCP'): NetworkPolicyRow {
  return networkPolicy(name, {
    podSelector: { matchLabels: { app: to } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { app: from } } }], ports: [{ port, protocol }] }],
  });
}

/** Shuts the pods with label app=`to` from everybody. */
export function denyIngress(name: string, to: string): NetworkPolicyRow {
  return networkPolicy(name, { podSelector: { matchLabels: { app: to } }, policyTypes: ['Ingress'] });
}
