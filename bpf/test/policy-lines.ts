// NetworkPolicies for tests, in few words.
import type { PolicyRow } from '../../src/core/rows.ts';
import { readPolicies } from '../../src/secure/policy/read-policies.ts';

/** A policy from its spec; throws when it has a problem. */
export function networkPolicy(
  name: string,
  spec: Record<string, unknown>,
  options: { namespace?: string; staged?: boolean } = {},
): PolicyRow {
  const [row] = readPolicies([
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: {
        name,
        namespace: options.namespace ?? 'default',
        ...(options.staged ? { annotations: { 'weir.dev/enforcement': 'staged' } } : {}),
      },
      spec,
    },
  ]);
  return row!;
}

/** Lets `from` reach the pods with label app=`to` on a TCP port; everybody else is shut out. */
export function allowIngress(name: string, to: string, from: string, port: number, protocol = 'TCP'): PolicyRow {
  return networkPolicy(name, {
    podSelector: { matchLabels: { app: to } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { app: from } } }], ports: [{ port, protocol }] }],
  });
}

/** Shuts the pods with label app=`to` from everybody. */
export function denyIngress(name: string, to: string): PolicyRow {
  return networkPolicy(name, { podSelector: { matchLabels: { app: to } }, policyTypes: ['Ingress'] });
}
