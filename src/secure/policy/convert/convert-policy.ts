// Turns a policy into one of another kind, and says exactly what would be lost.
import type { PolicyKind, PolicyObjectRow } from '../../../core/rows.ts';
import { ciliumSpec } from './to-cilium.ts';
import { clusterNetworkPolicySpec } from './to-cluster-network-policy.ts';
import { networkPolicySpec } from './to-network-policy.ts';
import type { Fields, Loss } from './written-parts.ts';

/** Manifests of the other kind: several where a policy has several specs that the kind cannot hold together. */
export interface Converted {
  readonly manifests: readonly Fields[];
  readonly losses: readonly Loss[];
}

/** What a policy can be converted to: all that can be written, so not what Weir itself adds. */
export type WrittenKind = Exclude<PolicyKind, 'Builtin'>;

const apiVersions: Readonly<Record<WrittenKind, string>> = {
  NetworkPolicy: 'networking.k8s.io/v1',
  CiliumNetworkPolicy: 'cilium.io/v2',
  CiliumClusterwideNetworkPolicy: 'cilium.io/v2',
  ClusterNetworkPolicy: 'policy.networking.k8s.io/v1alpha2',
};

/**
 * Converts what was read from a manifest. `metadata` is the manifest's own: labels and annotations go along. A policy that
 * was without a namespace gets `namespace` where the other kind needs one.
 */
export function convertPolicy(
  object: PolicyObjectRow,
  kind: WrittenKind,
  metadata: Fields,
  namespace = 'default',
): Converted {
  const losses: Loss[] = [];
  const lose = (path: string, why: string): void => {
    if (!losses.some((each) => each.path === path && each.why === why)) losses.push({ path, why });
  };
  for (const path of object.unenforced) lose(path, 'what is not enforced yet is not converted: the rule is left out');
  const namespaced = kind === 'NetworkPolicy' || kind === 'CiliumNetworkPolicy';
  const inNamespace = namespaced ? object.namespace || namespace : '';
  const several = object.specs.length > 1;
  const specs = object.specs.map((spec, i) => {
    const path = several ? `specs[${i}]` : 'spec';
    if (kind === 'NetworkPolicy') return networkPolicySpec(spec, inNamespace, path, lose);
    if (kind === 'ClusterNetworkPolicy') return clusterNetworkPolicySpec(spec, path, lose);
    return ciliumSpec(spec, inNamespace, path, lose);
  });
  const manifest = (more: Fields, i: number): Fields => ({
    apiVersion: apiVersions[kind],
    kind,
    metadata: {
      name: i === 0 ? object.name : `${object.name}-${i}`,
      ...(namespaced && { namespace: inNamespace }),
      ...(metadata.labels !== undefined && { labels: metadata.labels }),
      ...(metadata.annotations !== undefined && { annotations: metadata.annotations }),
    },
    ...more,
  });
  const together = several && kind.startsWith('Cilium');
  const manifests = together ? [manifest({ specs }, 0)] : specs.map((spec, i) => manifest({ spec }, i));
  return { manifests, losses };
}
