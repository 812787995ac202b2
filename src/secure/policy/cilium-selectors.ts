// Selectors of endpoints as cilium.io/v2 writes them: keys may begin with the source of the label (`k8s:`, `any:`,
// `reserved:`), and what a selector leaves open about the namespace is filled in.
// Source of the rules: docs.cilium.io, "Network Policy", sections on namespaces and on clusterwide policies.
import {
  allPods,
  labelCounts,
  metaLabels,
  namespaceLabelKey,
  reservedIdentities,
  reservedName,
} from '../../core/identity.ts';
import {
  type LabelSelector,
  parseSelector,
  type Requirement,
  selectorKeys,
  selectorMatches,
} from '../../core/labels.ts';
import type { PolicyPeer } from '../../core/rows.ts';
import { inNamespace, namesNamespace, type PolicyReader, usable } from './policy-reader.ts';

/** Reads selectors for one policy. */
export interface CiliumSelectors {
  /** Whom a policy selects. */
  pods(given: unknown, path: string): LabelSelector;
  /** Who is at the other end: pods, and reserved identities where the selector names them. Empty: nobody. */
  peers(given: unknown, path: string): PolicyPeer[];
}

const reservedPrefix = 'reserved:';
/** A label of a source that no pod of Kubernetes has. */
const foreign = /^(?!k8s:|any:|reserved:)[a-z0-9.-]+:/;
const isOdd = (key: string): boolean => key.startsWith(reservedPrefix) || foreign.test(key);
const initLabel = `${reservedPrefix}init`;

/** Makes the reader. `namespace` is the policy's, empty for clusterwide ones. */
export function createCiliumSelectors(
  reader: PolicyReader,
  namespace: string,
  ignoredLabels: readonly string[],
): CiliumSelectors {
  const counts = (key: string): boolean =>
    isMeta(key) || key.startsWith(reservedPrefix) || foreign.test(key) || labelCounts(key, ignoredLabels);

  function read(given: unknown, path: string): LabelSelector {
    return usable(fromSources(given, path, reader.problems), path, reader.bad, counts);
  }

  return {
    pods(given, path) {
      const asked = read(given, path);
      const selector = withoutReserved(asked);
      if (selector === undefined) {
        const odd = selectorKeys(asked).filter(isOdd).join(', ');
        const why = odd === initLabel ? 'a pod whose labels are not known is closed' : 'no pod has such a label';
        reader.remark(path, `asks for ${odd} and selects nobody: ${why}`);
        return nobody;
      }
      return selectorKeys(selector).length === 0 ? allPods : selector;
    },
    peers(given, path) {
      const selector = read(given, path);
      const peers: PolicyPeer[] = [];
      const identities = reservedOf(selector);
      if (identities.length > 0) peers.push({ kind: 'reserved', identities });
      const pods = withoutReserved(selector);
      if (pods === undefined) return peers;
      if (namespace !== '' && !namesNamespace(pods)) {
        peers.push({ kind: 'endpoints', selector: inNamespace(pods, namespace) });
      } else peers.push({ kind: 'endpoints', selector: selectorKeys(pods).length === 0 ? allPods : pods });
      return peers;
    },
  };
}

function isMeta(key: string): boolean {
  return Object.values(metaLabels).includes(key as never) || namespaceLabelKey(key) !== undefined;
}

/** Selects no pod at all. */
const nobody: LabelSelector = {
  matchLabels: {},
  matchExpressions: [{ key: metaLabels.namespace, operator: 'DoesNotExist', values: [] }],
};

/** Takes the sources off the keys, so that the rest reads as any selector does. */
function fromSources(given: unknown, path: string, problems: string[]): LabelSelector {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return parseSelector(given, path, problems);
  // Without a prototype: the key `__proto__` would else set it, and be asked for by nobody.
  const labels: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  const reserved: Requirement[] = [];
  const again: unknown[] = [];
  const { matchLabels, matchExpressions, ...rest } = given as Record<string, unknown>;
  const entries =
    typeof matchLabels === 'object' && matchLabels !== null && !Array.isArray(matchLabels)
      ? Object.entries(matchLabels)
      : [];
  for (const [key, value] of entries) {
    const name = withoutSource(key);
    if (name.startsWith(reservedPrefix) || foreign.test(name)) {
      reserved.push({ key: name, operator: 'In', values: [String(value)] });
    } else if (Object.hasOwn(labels, name)) again.push({ key: name, operator: 'In', values: [value] });
    else labels[name] = value;
  }
  const expressions = Array.isArray(matchExpressions) ? matchExpressions : [];
  const plain = expressions.flatMap((entry: unknown) => {
    const key = (entry as { key?: unknown } | null)?.key;
    if (typeof key !== 'string') return [entry];
    const name = withoutSource(key);
    if (!name.startsWith(reservedPrefix) && !foreign.test(name)) return [{ ...(entry as object), key: name }];
    const { operator, values } = entry as Requirement;
    reserved.push({ key: name, operator, values: Array.isArray(values) ? values.map(String) : [] });
    return [];
  });
  const parsed = parseSelector(
    {
      ...rest,
      matchLabels: entries.length > 0 ? labels : (matchLabels ?? {}),
      matchExpressions:
        Array.isArray(matchExpressions) || again.length > 0 ? [...plain, ...again] : (matchExpressions ?? []),
    },
    path,
    problems,
  );
  for (const { key, operator } of reserved) {
    if (['In', 'NotIn', 'Exists', 'DoesNotExist'].includes(operator)) continue;
    problems.push(`${path} has an unknown operator for ${key}`);
  }
  return { matchLabels: parsed.matchLabels, matchExpressions: [...parsed.matchExpressions, ...reserved] };
}

function withoutSource(key: string): string {
  return key.startsWith('k8s:') || key.startsWith('any:') ? key.slice(4) : key;
}

/** The reserved identities that a selector selects. Only one that names a reserved label speaks of them at all. */
function reservedOf(selector: LabelSelector): number[] {
  if (!selectorKeys(selector).some((key) => key.startsWith(reservedPrefix))) return [];
  return Object.values(reservedIdentities).filter((identity) => {
    if (identity === reservedIdentities.unknown) return false;
    const names: string[] = [reservedName(identity)!];
    if (identity === reservedIdentities['world-ipv4'] || identity === reservedIdentities['world-ipv6']) {
      names.push('world');
    }
    return selectorMatches(selector, Object.fromEntries(names.map((name) => [`${reservedPrefix}${name}`, ''])));
  });
}

/** What a selector asks of pods, which have no reserved labels and none of foreign sources; undefined: more than they have. */
function withoutReserved(selector: LabelSelector): LabelSelector | undefined {
  const asked = selector.matchExpressions.filter(({ key }) => isOdd(key));
  if (asked.some(({ operator }) => operator === 'In' || operator === 'Exists')) return undefined;
  return { ...selector, matchExpressions: selector.matchExpressions.filter(({ key }) => !isOdd(key)) };
}
