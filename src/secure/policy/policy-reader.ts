// What the parsers of all policy kinds share: reading untrusted objects with a list of what is wrong and where, and
// selectors as identities understand them.
import {
  allPods,
  ignoredLabelKeys,
  labelCounts,
  metaLabels,
  namespaceLabel,
  namespaceLabelKey,
} from '../../core/identity.ts';
import { type Cidr, parseAddress, parseCidr } from '../../core/ip.ts';
import { type LabelSelector, parseSelector, selectorKeys } from '../../core/labels.ts';
import { nearestName } from '../../core/nearest-name.ts';
import { type PolicyEnforcement, type PolicyKind, type PolicyObjectRow, policyKey } from '../../core/rows.ts';

/** The annotation that makes a policy report without enforcing, with the value `staged`. */
export const enforcementAnnotation = 'weir.dev/enforcement';

/** What came of a policy: a row unless it has no name to be known by, and every problem with its JSON path. */
export interface ParsedPolicy {
  readonly row?: PolicyObjectRow;
  readonly problems: readonly string[];
}

/** What all policies have. */
export interface PolicyHead {
  readonly key: string;
  readonly kind: PolicyKind;
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
}

/** A policy whose specs are to be read. */
export interface OpenedPolicy {
  readonly policy: Fields;
  readonly head: PolicyHead;
  readonly enforcement: PolicyEnforcement;
}

/** Fields of an object that is not trusted. */
export type Fields = Readonly<Record<string, unknown>>;

/** Reads one policy. */
export interface PolicyReader {
  readonly problems: string[];
  bad(path: string, text: string): void;
  /** What is no mistake, and means something else than one would think. */
  readonly remarks: string[];
  remark(path: string, text: string): void;
  /** An object; with `fields`, others are problems. What is no object reads as an empty one. */
  object(given: unknown, path: string, fields?: readonly string[]): Fields;
  /** A list; what is absent reads as an empty one. */
  list(given: unknown, path: string): readonly unknown[];
  text(given: unknown, path: string): string;
  boolean(given: unknown, path: string): boolean | undefined;
  /** A selector of pods' own labels. */
  podSelector(given: unknown, path: string): LabelSelector;
  /** A selector of labels that are not identities': of namespaces, nodes, services. */
  plainSelector(given: unknown, path: string): LabelSelector;
  cidr(given: unknown, path: string): Cidr | undefined;
  /** What is the same in every kind; undefined when there is no name to know the policy by. */
  open(
    given: unknown,
    options: { readonly apiVersion: string; readonly namespaced: boolean; readonly several?: boolean },
  ): OpenedPolicy | undefined;
}

const maxProblemsShown = 10;

/** The problems in one line, the first ones of many. */
export function problemText(problems: readonly string[]): string {
  const more = problems.length - maxProblemsShown;
  const shown = problems.slice(0, maxProblemsShown).join('; ');
  return more > 0 ? `${shown}; and ${more} more` : shown;
}

/** Makes a reader. `ignoredLabels` are the label keys that identities leave out, which selectors cannot use. */
export function createPolicyReader(kind: PolicyKind, ignoredLabels = ignoredLabelKeys): PolicyReader {
  const problems: string[] = [];
  const remarks: string[] = [];
  const bad = (path: string, text: string): void => void problems.push(path === '' ? text : `${path} ${text}`);

  function object(given: unknown, path: string, fields?: readonly string[]): Fields {
    if (typeof given !== 'object' || given === null || Array.isArray(given)) {
      bad(path, path === '' ? `a ${kind} must be an object` : 'must be an object');
      return {};
    }
    for (const field of Object.keys(given)) {
      if (fields !== undefined && !fields.includes(field)) {
        const at = path === '' ? field : `${path}.${field}`;
        const near = nearestName(field, fields);
        const meant = near === undefined ? '' : `; did you mean ${near}?`;
        bad(at, `is not a field here${meant || ';'} ${meant ? 'The' : 'the'} fields are ${fields.join(', ')}`);
      }
    }
    return given as Fields;
  }

  function headOf(metadata: Fields, namespaced: boolean): PolicyHead | undefined {
    const { name, namespace, uid } = metadata;
    if (!isName(name)) bad('metadata.name', 'must be a name of at most 253 characters');
    if (namespaced && !isName(namespace)) bad('metadata.namespace', 'must be the name of a namespace');
    if (!isName(name) || (namespaced && !isName(namespace))) return undefined;
    const inNamespace = namespaced ? (namespace as string) : '';
    const key = policyKey(kind, inNamespace, name);
    return { key, kind, namespace: inNamespace, name, ...(typeof uid === 'string' && { uid }) };
  }

  function enforcementOf({ annotations }: Fields): PolicyEnforcement {
    const value =
      typeof annotations === 'object' && annotations !== null
        ? (annotations as Fields)[enforcementAnnotation]
        : undefined;
    if (value === undefined) return 'default';
    if (value === 'enforced' || value === 'staged') return value;
    bad(`metadata.annotations["${enforcementAnnotation}"]`, `must be staged or enforced, not ${JSON.stringify(value)}`);
    return 'default';
  }

  return {
    problems,
    bad,
    remarks,
    remark: (path, text) => void remarks.push(`${path} ${text}`),
    object,
    list(given, path) {
      if (!present(given)) return [];
      if (Array.isArray(given)) return given;
      bad(path, 'must be a list');
      return [];
    },
    text(given, path) {
      if (typeof given === 'string') return given;
      bad(path, 'must be a text');
      return '';
    },
    boolean(given, path) {
      if (!present(given)) return undefined;
      if (typeof given === 'boolean') return given;
      bad(path, 'must be true or false');
      return undefined;
    },
    podSelector(given, path) {
      return usable(parseSelector(given, path, problems), path, bad, (key) => labelCounts(key, ignoredLabels));
    },
    plainSelector: (given, path) => parseSelector(given, path, problems),
    cidr(given, path) {
      const parsed = parseCidr(given);
      if (parsed.ok) return parsed.value;
      bad(path, `is not a block: ${parsed.reason}`);
      return undefined;
    },
    open(given, { apiVersion, namespaced, several = false }) {
      const fields = ['apiVersion', 'kind', 'metadata', 'spec', ...(several ? ['specs'] : []), 'status'];
      const policy = object(given, '', fields);
      if (policy.apiVersion !== undefined && policy.apiVersion !== apiVersion)
        bad('apiVersion', `must be ${apiVersion}`);
      if (policy.kind !== undefined && policy.kind !== kind) bad('kind', `must be ${kind}`);
      const metadata = object(policy.metadata ?? {}, 'metadata');
      const head = headOf(metadata, namespaced);
      return head && { policy, head, enforcement: enforcementOf(metadata) };
    },
  };
}

/**
 * Labels that identities do not have cannot be asked about: the answer would be wrong in one direction or the other. They
 * are left out, so that the policy, closed, holds for all whom it may select.
 */
export function usable(
  selector: LabelSelector,
  path: string,
  bad: PolicyReader['bad'],
  counts: (key: string) => boolean,
): LabelSelector {
  const unusable = selectorKeys(selector).filter((key) => !counts(key));
  if (unusable.length === 0) return selector;
  bad(path, `uses ${unusable.join(', ')}, which changes per pod or rollout and is not part of identities`);
  return {
    matchLabels: Object.fromEntries(Object.entries(selector.matchLabels).filter(([key]) => !unusable.includes(key))),
    matchExpressions: selector.matchExpressions.filter(({ key }) => !unusable.includes(key)),
  };
}

/** The pods of one namespace that a selector selects. */
export function inNamespace(selector: LabelSelector, namespace: string): LabelSelector {
  return { ...selector, matchLabels: { ...selector.matchLabels, [metaLabels.namespace]: namespace } };
}

/** The pods that a selector selects, in the namespaces that another selects. */
export function inNamespaces(pods: LabelSelector, namespaces: LabelSelector): LabelSelector {
  const labels = Object.entries(namespaces.matchLabels).map(([key, value]) => [namespaceLabel(key), value] as const);
  const merged = {
    matchLabels: { ...pods.matchLabels, ...Object.fromEntries(labels) },
    matchExpressions: [
      ...pods.matchExpressions,
      ...namespaces.matchExpressions.map((each) => ({ ...each, key: namespaceLabel(each.key) })),
    ],
  };
  return selectorKeys(merged).length === 0 ? allPods : merged;
}

/** Whether a selector of endpoints says in which namespaces they are. */
export function namesNamespace(selector: LabelSelector): boolean {
  return selectorKeys(selector).some((key) => key === metaLabels.namespace || namespaceLabelKey(key) !== undefined);
}

/** Whether a field is there. */
export function present(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** An address or a block, as Cilium's CIDR lists take them. */
export function parseCidrOrAddress(given: unknown): ReturnType<typeof parseCidr> {
  const address = parseAddress(given);
  if (!address.ok) return parseCidr(given);
  return { ok: true, value: { ...address.value, prefixBits: address.value.family === 4 ? 32 : 128 } };
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(value);
}

/** Whether a value is the number of a port. */
export function isPortNumber(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 65_535;
}

/** RFC 6335: at least one letter, no two dashes in a row, none at the ends. */
export function isPortName(name: string): boolean {
  return name.length <= 15 && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) && /[a-z]/.test(name);
}
