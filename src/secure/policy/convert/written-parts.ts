// What the writers of all kinds share: what would be lost, and selectors taken apart into what they say of pods, of
// namespaces, and of what only cilium.io/v2 can say.
import { metaLabels, namespaceLabelKey } from '../../../core/identity.ts';
import type { LabelSelector, Requirement } from '../../../core/labels.ts';

/** Something that the other kind cannot say. */
export interface Loss {
  /** Its place in the policy that is converted. */
  readonly path: string;
  readonly why: string;
}

/** Fields of a manifest. */
export type Fields = Record<string, unknown>;

/** Collects losses. */
export type Lose = (path: string, why: string) => void;

/** A selector of endpoints as parts. */
export interface SelectorParts {
  readonly pods: LabelSelector;
  /** Undefined where it says nothing of namespaces at all. */
  readonly namespaces: LabelSelector | undefined;
  /** Labels that only cilium.io/v2 knows: of service accounts and clusters. */
  readonly others: readonly string[];
}

const nameLabel = 'kubernetes.io/metadata.name';

/** Takes a selector apart. Names of namespaces become the label that every namespace has. */
export function selectorParts({ matchLabels, matchExpressions }: LabelSelector): SelectorParts {
  const pods = { matchLabels: {} as Record<string, string>, matchExpressions: [] as Requirement[] };
  const namespaces = { matchLabels: {} as Record<string, string>, matchExpressions: [] as Requirement[] };
  const others: string[] = [];
  let speaks = false;
  for (const [key, value] of Object.entries(matchLabels)) {
    const ofNamespace = key === metaLabels.namespace ? nameLabel : namespaceLabelKey(key);
    if (ofNamespace !== undefined) {
      // Twice the same label with two values: both must hold, so nobody is meant.
      const before = namespaces.matchLabels[ofNamespace];
      if (before === undefined) namespaces.matchLabels[ofNamespace] = value;
      else namespaces.matchExpressions.push({ key: ofNamespace, operator: 'In', values: [value] });
      speaks = true;
    } else if (key === metaLabels.serviceAccount || key === metaLabels.cluster) others.push(key);
    else pods.matchLabels[key] = value;
  }
  for (const each of matchExpressions) {
    const ofNamespace = each.key === metaLabels.namespace ? nameLabel : namespaceLabelKey(each.key);
    if (ofNamespace !== undefined) {
      speaks = true;
      // Every pod has a namespace.
      if (each.key === metaLabels.namespace && each.operator === 'Exists') continue;
      namespaces.matchExpressions.push({ ...each, key: ofNamespace });
    } else if (each.key === metaLabels.serviceAccount || each.key === metaLabels.cluster) others.push(each.key);
    else pods.matchExpressions.push(each);
  }
  return { pods, namespaces: speaks ? namespaces : undefined, others };
}

/** A selector as manifests have it, without what is empty. */
export function selectorFields({ matchLabels, matchExpressions }: LabelSelector): Fields {
  return {
    ...(Object.keys(matchLabels).length > 0 && { matchLabels: { ...matchLabels } }),
    ...(matchExpressions.length > 0 && {
      matchExpressions: matchExpressions.map(({ key, operator, values }) => ({
        key,
        operator,
        ...(values.length > 0 && { values: [...values] }),
      })),
    }),
  };
}

/** Whether a selector says no more than that pods are of one namespace. */
export function isOnlyNamespace(parts: SelectorParts, namespace: string): boolean {
  const { namespaces } = parts;
  if (namespaces === undefined || namespaces.matchExpressions.length > 0) return false;
  return Object.keys(namespaces.matchLabels).join() === nameLabel && namespaces.matchLabels[nameLabel] === namespace;
}
