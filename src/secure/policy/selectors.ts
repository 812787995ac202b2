// Which identities each peer selector selects, kept up to date as identities, namespaces and policies come and go.
// Equal selectors are one entry. Entries and identities find each other by one label, so that a change is compared
// with what it may concern and not with everything.
import { metaLabels, namespaceLabel, type PodIdentity, selectsPod } from '../../core/identity.ts';
import { type LabelMap, type LabelSelector, selectorKey } from '../../core/labels.ts';
import type { PolicyPeer } from '../../core/rows.ts';
import type { CompiledRule } from './compiled-rule.ts';

/** A selector in use: the identities it selects and the rules that use it. */
export interface PeerSelector {
  readonly key: string;
  readonly selector: LabelSelector;
  readonly identities: Set<number>;
  readonly rules: Set<CompiledRule>;
  /** The label under which it is found. */
  readonly indexedBy: string;
}

/** An identity that a selector selects now, or no longer. */
export interface SelectionChange {
  readonly selector: PeerSelector;
  readonly identity: number;
}

type EndpointPeer = Extract<PolicyPeer, { kind: 'endpoints' }>;

/** The index. */
export interface Selectors {
  /** Begins to follow the endpoint peers of a rule. */
  use(rule: CompiledRule): void;
  unuse(rule: CompiledRule): void;
  of(rule: CompiledRule): readonly PeerSelector[];
  /** Tells what an identity is; undefined when it is gone or unknown. */
  setIdentity(identity: number, pod: PodIdentity | undefined): SelectionChange[];
  /** Tells a namespace's labels; undefined when it is gone or unknown. */
  setNamespace(name: string, labels: LabelMap | undefined): SelectionChange[];
  selecting(identity: number): ReadonlySet<PeerSelector>;
  readonly size: number;
}

const none: ReadonlySet<PeerSelector> = new Set();

/** Makes an empty index. */
export function createSelectors(): Selectors {
  const selectors = new Map<string, PeerSelector>();
  const selectorsBy = new Map<string, Set<PeerSelector>>();
  const selecting = new Map<number, Set<PeerSelector>>();
  const identities = new Map<number, PodIdentity>();
  const identitiesBy = new Map<string, Set<number>>();
  const namespaces = new Map<string, LabelMap>();
  const usedBy = new Map<CompiledRule, PeerSelector[]>();

  function selects({ selector }: PeerSelector, pod: PodIdentity): boolean {
    return selectsPod(selector, pod, namespaces.get(pod.namespace));
  }

  function set(selector: PeerSelector, identity: number, selected: boolean): boolean {
    if (selector.identities.has(identity) === selected) return false;
    if (selected) {
      selector.identities.add(identity);
      addTo(selecting, identity, selector);
    } else {
      selector.identities.delete(identity);
      removeFrom(selecting, identity, selector);
    }
    return true;
  }

  /** Compares an identity with the selectors that may select it and those that did. */
  function review(identity: number, pod: PodIdentity | undefined): SelectionChange[] {
    const candidates = new Set(selecting.get(identity));
    for (const index of pod === undefined ? [] : indexesOf(pod)) {
      for (const selector of selectorsBy.get(index) ?? []) candidates.add(selector);
    }
    const changes: SelectionChange[] = [];
    for (const selector of candidates) {
      const selected = pod !== undefined && selects(selector, pod);
      if (set(selector, identity, selected)) changes.push({ selector, identity });
    }
    return changes;
  }

  function indexesOf({ namespace, labels }: PodIdentity): string[] {
    const ofNamespace = Object.entries(namespaces.get(namespace) ?? {});
    return [
      'any',
      ...Object.entries(labels).map(([key, value]) => `${key}=${value}`),
      ...ofNamespace.map(([key, value]) => `${namespaceLabel(key)}=${value}`),
    ];
  }

  function index(identity: number, pod: PodIdentity): void {
    for (const each of indexesOf(pod)) addTo(identitiesBy, each, identity);
  }

  function unindex(identity: number, pod: PodIdentity): void {
    for (const each of indexesOf(pod)) removeFrom(identitiesBy, each, identity);
  }

  function make(key: string, { selector }: EndpointPeer): PeerSelector {
    const labels = Object.entries(selector.matchLabels).map(([name, value]) => `${name}=${value}`);
    const found = (each: string): number => identitiesBy.get(each)?.size ?? 0;
    const indexedBy = labels.reduce((best, each) => (found(each) < found(best) ? each : best), labels[0] ?? 'any');
    const made: PeerSelector = { key, selector, identities: new Set(), rules: new Set(), indexedBy };
    selectors.set(key, made);
    addTo(selectorsBy, indexedBy, made);
    for (const identity of identitiesBy.get(indexedBy) ?? []) {
      set(made, identity, selects(made, identities.get(identity)!));
    }
    return made;
  }

  return {
    get size() {
      return selectors.size;
    },
    use(rule) {
      const used = new Set<PeerSelector>();
      for (const peer of rule.peers ?? []) {
        if (peer.kind !== 'endpoints') continue;
        const key = selectorKey(peer.selector);
        used.add(selectors.get(key) ?? make(key, peer));
      }
      for (const selector of used) selector.rules.add(rule);
      if (used.size > 0) usedBy.set(rule, [...used]);
    },
    unuse(rule) {
      for (const selector of usedBy.get(rule) ?? []) {
        selector.rules.delete(rule);
        if (selector.rules.size > 0) continue;
        selectors.delete(selector.key);
        removeFrom(selectorsBy, selector.indexedBy, selector);
        for (const identity of [...selector.identities]) set(selector, identity, false);
      }
      usedBy.delete(rule);
    },
    of: (rule) => usedBy.get(rule) ?? [],
    setIdentity(identity, pod) {
      const before = identities.get(identity);
      if (before !== undefined) unindex(identity, before);
      if (pod === undefined) identities.delete(identity);
      else {
        identities.set(identity, pod);
        index(identity, pod);
      }
      return review(identity, pod);
    },
    setNamespace(name, labels) {
      const inside = [...(identitiesBy.get(`${metaLabels.namespace}=${name}`) ?? [])];
      for (const identity of inside) unindex(identity, identities.get(identity)!);
      if (labels === undefined) namespaces.delete(name);
      else namespaces.set(name, labels);
      for (const identity of inside) index(identity, identities.get(identity)!);
      return inside.flatMap((identity) => review(identity, identities.get(identity)));
    },
    selecting: (identity) => selecting.get(identity) ?? none,
  };
}

function addTo<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([value]));
  else set.add(value);
}

function removeFrom<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set?.delete(value) && set.size === 0) map.delete(key);
}
