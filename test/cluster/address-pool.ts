// Pools of addresses for services of type LoadBalancer, of one test's namespace only.
import { type SharedLab, waitFor } from './shared-lab.ts';

/** The manifest of a pool for a namespace's services. */
export function addressPool(name: string, namespace: string, spec: object): object {
  return {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumLoadBalancerIPPool',
    metadata: { name },
    spec: { serviceSelector: { matchLabels: { 'io.kubernetes.service.namespace': namespace } }, ...spec },
  };
}

/** Makes the namespace, and waits until pools may be made: the operator brings their definition. */
export async function poolNamespace(lab: SharedLab, namespace: string): Promise<void> {
  await lab.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }]);
  await waitFor(
    'the definition of pools',
    async () => (await lab.kubectl(['get', 'crd', '-o', 'name'])).includes('ciliumloadbalancerippools.cilium.io'),
    30_000,
  );
}
