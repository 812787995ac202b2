// Security identities: the reserved numbers, which labels count, and the canonical text of a set of labels.
// Everything a policy decides about a pod it decides by these labels, so that pods alike share one number.
import { formatLabel, type LabelMap, type LabelSelector, ownValue, parseLabel, selectorHolds } from './labels.ts';

/** Identities that need no allocation, numbered as the ecosystem numbers them. */
export const reservedIdentities = {
  unknown: 0,
  host: 1,
  world: 2,
  unmanaged: 3,
  health: 4,
  init: 5,
  'remote-node': 6,
  'kube-apiserver': 7,
  ingress: 8,
  'world-ipv4': 9,
  'world-ipv6': 10,
} as const;

/** The name of a reserved identity. */
export type ReservedName = keyof typeof reservedIdentities;

/** The first and last number the operator allocates for a cluster. */
export const clusterIdentities = { first: 256, last: 65_535 } as const;

/** The name of a reserved identity, undefined for allocated ones. */
export function reservedName(identity: number): ReservedName | undefined {
  return reservedNames.get(identity);
}

const reservedNames = new Map(
  Object.entries(reservedIdentities).map(([name, number]) => [number as number, name as ReservedName]),
);

/** Whether an identity stands for something outside of the cluster. */
export function isWorld(identity: number): boolean {
  const { world, 'world-ipv4': v4, 'world-ipv6': v6 } = reservedIdentities;
  return identity === world || identity === v4 || identity === v6;
}

/** Whether an address with this identity is outside of the cluster: there policies speak of CIDRs. */
export function isOutside(identity: number): boolean {
  return isWorld(identity) || identity === reservedIdentities['kube-apiserver'];
}

/** Whether an identity is that of nodes. */
export function isNode(identity: number): boolean {
  return identity === reservedIdentities.host || identity === reservedIdentities['remote-node'];
}

/**
 * The labels that Weir adds to a pod's own, as selectors of policies name them: beside these keys, `namespaceLabel(key)`
 * is a label of the pod's namespace, and every other key a label of the pod.
 */
export const metaLabels = {
  namespace: 'io.kubernetes.pod.namespace',
  serviceAccount: 'io.cilium.k8s.policy.serviceaccount',
  cluster: 'io.cilium.k8s.policy.cluster',
} as const;

const namespaceLabelPrefix = 'io.cilium.k8s.namespace.labels.';

/** The key under which a selector of endpoints asks for a label of the pod's namespace. */
export function namespaceLabel(key: string): string {
  return `${namespaceLabelPrefix}${key}`;
}

/** The key of the namespace's label that a selector of endpoints asks for, undefined when it asks for another. */
export function namespaceLabelKey(key: string): string | undefined {
  return key.startsWith(namespaceLabelPrefix) ? key.slice(namespaceLabelPrefix.length) : undefined;
}

/**
 * Pod labels that do not count, because they differ per pod or per rollout: each would give every pod or every
 * rollout a number of its own. A key ending in `/` stands for all keys with that prefix. Policies cannot select by
 * them, and are refused when they try.
 */
export const ignoredLabelKeys: readonly string[] = [
  'pod-template-hash',
  'controller-revision-hash',
  'pod-template-generation',
  'controller-uid',
  'job-name',
  'batch.kubernetes.io/job-name',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-completion-index',
  'job-completion-index',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'topology.kubernetes.io/',
  'kubernetes.io/hostname',
];

/** Whether a pod label takes part in the identity. Keys that Weir itself sets cannot come from the pod. */
export function labelCounts(key: string, ignored: readonly string[] = ignoredLabelKeys): boolean {
  if (key === metaLabels.namespace || key === metaLabels.serviceAccount || key === metaLabels.cluster) return false;
  if (key.startsWith(namespaceLabelPrefix)) return false;
  return !ignored.some((entry) => (entry.endsWith('/') ? key.startsWith(entry) : key === entry));
}

/** What a pod's identity is made of. */
export interface IdentitySource {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: LabelMap;
  readonly cluster?: string;
}

/** The sorted labels (`k8s:key=value`) that make a pod's identity. */
export function identityLabels(pod: IdentitySource, ignored: readonly string[] = ignoredLabelKeys): string[] {
  const labels: [string, string][] = [
    ...Object.entries(pod.labels).filter(([key]) => labelCounts(key, ignored)),
    [metaLabels.namespace, pod.namespace],
    [metaLabels.serviceAccount, pod.serviceAccount],
    [metaLabels.cluster, pod.cluster ?? 'default'],
  ];
  return sortLabels(labels.map(([key, value]) => formatLabel({ source: 'k8s', key, value })));
}

/** Labels in the order identities keep them: by code unit, which is the same on every machine. */
function sortLabels(labels: readonly string[]): string[] {
  return [...labels].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** The canonical text of a set of labels; two sets are one identity when their texts are equal. */
export function identityKey(labels: readonly string[]): string {
  return sortLabels([...new Set(labels)])
    .map((label) => `${label};`)
    .join('');
}

/** A pod as selectors see it: its labels, and those that Weir adds. Its namespace's labels are looked up. */
export interface PodIdentity {
  readonly namespace: string;
  readonly labels: LabelMap;
}

/** What policies ask about an identity. Undefined for what is not a pod. */
export function podOfIdentity(labels: readonly string[]): PodIdentity | undefined {
  const all: Record<string, string> = {};
  for (const text of labels) {
    const label = parseLabel(text);
    if (label.source === 'k8s') all[label.key] = label.value;
  }
  const namespace = Object.hasOwn(all, metaLabels.namespace) ? all[metaLabels.namespace] : undefined;
  return namespace === undefined ? undefined : { namespace, labels: all };
}

/** Whether a selector of endpoints selects a pod. Labels of a namespace that is not known could be anything: no. */
export function selectsPod(selector: LabelSelector, pod: PodIdentity, namespaceLabels: LabelMap | undefined): boolean {
  let unknown = false;
  const holds = selectorHolds(selector, (key) => {
    const ofNamespace = namespaceLabelKey(key);
    if (ofNamespace === undefined) return ownValue(pod.labels, key);
    if (namespaceLabels === undefined) unknown = true;
    return namespaceLabels && ownValue(namespaceLabels, ofNamespace);
  });
  return holds && !unknown;
}

/** Selects every pod. */
export const allPods: LabelSelector = {
  matchLabels: {},
  matchExpressions: [{ key: metaLabels.namespace, operator: 'Exists', values: [] }],
};

/** The rows of the reserved identities, labelled `reserved:name`. */
export function reservedIdentityRows(): { id: number; labels: readonly string[] }[] {
  return Object.entries(reservedIdentities)
    .filter(([, id]) => id !== 0)
    .map(([name, id]) => ({ id, labels: [`reserved:${name}`] }));
}
