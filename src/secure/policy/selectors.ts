// Which identities each peer selector selects, kept up to date as identities, namespaces and policies come and go.
// Equal selectors are one entry. Entries and identities find each other by one label, so that a change is compared
// with what it may concern and not with everything.
import { type LabelMap, type LabelSelector, selectorKey, selectorMatches } from '../../core/labels.ts';
import type { PolicyPeer } from '../../core/rows.ts';
import type { CompiledRule } from './compiled-rule.ts';

/** What selectors ask about an identity. */
export interface PodIdentity {
  readonly namespace: string;
  readonly labels: LabelMap;
}

/** A selector in use: the identities it selects and the rules that use it. */
export interface PeerSelector {
  readonly key: string;
  /** Without a namespace selector: the only namespace. */
  readonly namespace: string | undefined;
  readonly namespaceSelector: LabelSelector | undefined;
  readonly podSelector: LabelSelector;
  readonly identities: Set<number>;
  readonly rules: Set<CompiledRule>;
  /** The label or namespace under which it is found. */
  readonly indexedBy: string;
}

/** An identity that a selector selects now, or no longer. */
export interface SelectionChange {
  readonly selector: PeerSelector;
  readonly identity: number;
}

type PodPeer = Extract<PolicyPeer, { kind: 'pods' }>;

/** The index. */
export interface Selectors {
  /** Begins to follow the pod peers of a rule. */
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

  function keyOf(rule: CompiledRule, peer: PodPeer): string {
    const { namespaceSelector } = peer;
    const scope = namespaceSelector === undefined ? rule.origin.namespace : selectorKey(namespaceSelector);
    return `${scope} ${selectorKey(peer.podSelector)}`;
  }

  function selects(selector: PeerSelector, pod: PodIdentity): boolean {
    if (selector.namespaceSelector === undefined) {
      if (selector.namespace !== pod.namespace) return false;
    } else {
      const labels = namespaces.get(pod.namespace);
      if (labels === undefined || !selectorMatches(selector.namespaceSelector, labels)) return false;
    }
    return selectorMatches(selector.podSelector, pod.labels);
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

  function make(key: string, namespace: string, peer: PodPeer): PeerSelector {
    const { namespaceSelector, podSelector } = peer;
    const scope = namespaceSelector === undefined ? `namespace ${namespace}` : 'any';
    const indexes = [scope, ...Object.entries(podSelector.matchLabels).map(([name, value]) => `${name}=${value}`)];
    const found = (index: string): number => identitiesBy.get(index)?.size ?? 0;
    const labelled = indexes.length > 1 ? indexes.slice(1) : indexes;
    const indexedBy = labelled.reduce((best, index) => (found(index) < found(best) ? index : best));
    const selector: PeerSelector = {
      key,
      namespace: namespaceSelector === undefined ? namespace : undefined,
      namespaceSelector,
      podSelector,
      identities: new Set(),
      rules: new Set(),
      indexedBy,
    };
    selectors.set(key, selector);
    addTo(selectorsBy, indexedBy, selector);
    for (const identity of identitiesBy.get(indexedBy) ?? []) {
      set(selector, identity, selects(selector, identities.get(identity)!));
    }
    return selector;
  }

  return {
    get size() {
      return selectors.size;
    },
    use(rule) {
      const used = new Set<PeerSelector>();
      for (const peer of rule.peers) {
        if (peer.kind !== 'pods') continue;
        const key = keyOf(rule, peer);
        used.add(selectors.get(key) ?? make(key, rule.origin.namespace, peer));
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
      if (before !== undefined) for (const index of indexesOf(before)) removeFrom(identitiesBy, index, identity);
      if (pod === undefined) identities.delete(identity);
      else {
        identities.set(identity, pod);
        for (const index of indexesOf(pod)) addTo(identitiesBy, index, identity);
      }
      return review(identity, pod);
    },
    setNamespace(name, labels) {
      if (labels === undefined) namespaces.delete(name);
      else namespaces.set(name, labels);
      const inside = [...(identitiesBy.get(`namespace ${name}`) ?? [])];
      return inside.flatMap((identity) => review(identity, identities.get(identity)));
    },
    selecting: (identity) => selecting.get(identity) ?? none,
  };
}

function indexesOf(pod: PodIdentity): string[] {
  return [
    'any',
    `namespace ${pod.namespace}`,
    ...Object.entries(pod.labels).map(([name, value]) => `${name}=${value}`),
  ];
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
