// Which ends a peer or a policy means, found by label, address or number rather than by looking at all of them.
import {
  isNode,
  isOutside,
  metaLabels,
  namespaceLabel,
  reservedIdentities,
  selectsPod,
} from '../../../core/identity.ts';
import { type IpAddress, parseCidr } from '../../../core/ip.ts';
import { type LabelMap, type LabelSelector, selectorKey } from '../../../core/labels.ts';
import type { NamespaceRow, PolicyPeer, PolicyRow } from '../../../core/rows.ts';
import type { End } from './ends.ts';

/** Answers with places in the list of ends, in rising order. */
export interface EndSets {
  readonly ends: readonly End[];
  matching(peer: PolicyPeer): readonly number[];
  selectedBy(policy: PolicyRow): readonly number[];
}

type Block = Extract<PolicyPeer, { kind: 'block' }>;

/** Makes the index over ends. */
export function createEndSets(ends: readonly End[], namespaces: readonly NamespaceRow[]): EndSets {
  const labelsOf = new Map<string, LabelMap>(namespaces.map((row) => [row.name, row.labels]));
  const pods: number[] = [];
  const byLabel = new Map<string, number[]>();
  const byIdentity = new Map<number, number[]>();
  const apiServers: number[] = [];
  const addresses: Record<4 | 6, { key: string; end: number }[]> = { 4: [], 6: [] };
  const put = <K>(map: Map<K, number[]>, key: K, end: number): void => {
    const list = map.get(key);
    if (list === undefined) map.set(key, [end]);
    else list.push(end);
  };
  for (const [i, { party }] of ends.entries()) {
    put(byIdentity, party.identity, i);
    if (party.apiServer) apiServers.push(i);
    if (party.address !== undefined) addresses[party.address.family].push({ key: keyOf(party.address.bytes), end: i });
    if (party.pod === undefined) continue;
    pods.push(i);
    const { labels, namespace } = party.pod;
    for (const key in labels) put(byLabel, `${key}=${labels[key]}`, i);
    const own = labelsOf.get(namespace) ?? {};
    for (const key in own) put(byLabel, `${namespaceLabel(key)}=${own[key]}`, i);
  }
  for (const family of [4, 6] as const) addresses[family].sort((a, b) => (a.key < b.key ? -1 : 1));

  const bySelector = new Map<string, readonly number[]>();
  function selected(selector: LabelSelector): readonly number[] {
    const key = selectorKey(selector);
    const before = bySelector.get(key);
    if (before !== undefined) return before;
    let candidates: readonly number[] = pods;
    for (const [name, value] of Object.entries(selector.matchLabels)) {
      const having = byLabel.get(`${name}=${value}`) ?? [];
      if (having.length < candidates.length) candidates = having;
    }
    const found = candidates.filter((i) => {
      const { pod } = ends[i]!.party;
      return selectsPod(selector, pod!, labelsOf.get(pod!.namespace));
    });
    bySelector.set(key, found);
    return found;
  }

  function inBlock(text: string): readonly number[] {
    const parsed = parseCidr(text);
    if (!parsed.ok) return [];
    const { family, bytes, prefixBits } = parsed.value;
    const list = addresses[family];
    const first = lowerBound(list, keyOf(bytes));
    const end = upperBound(list, keyOf(lastOf(bytes, prefixBits)));
    return list.slice(first, end).map((each) => each.end);
  }

  function ofBlock({ cidr, except, reach }: Block): readonly number[] {
    const without = new Set(except.flatMap(inBlock));
    return inBlock(cidr)
      .filter((i) => {
        const { identity } = ends[i]!.party;
        if (reach === 'outside' && !isOutside(identity)) return false;
        if (reach === 'not-pods' && !isOutside(identity) && !isNode(identity)) return false;
        return !without.has(i);
      })
      .sort((a, b) => a - b);
  }

  function ofReserved(identities: readonly number[]): readonly number[] {
    const found = new Set(identities.flatMap((identity) => byIdentity.get(identity) ?? []));
    if (identities.includes(reservedIdentities['kube-apiserver'])) for (const i of apiServers) found.add(i);
    return [...found].sort((a, b) => a - b);
  }

  const byPeer = new Map<string, readonly number[]>();
  return {
    ends,
    matching(peer) {
      if (peer.kind === 'endpoints') return selected(peer.selector);
      const key = JSON.stringify(peer);
      const found = byPeer.get(key) ?? (peer.kind === 'block' ? ofBlock(peer) : ofReserved(peer.identities));
      byPeer.set(key, found);
      return found;
    },
    selectedBy(policy) {
      if (policy.subject.kind === 'node') return byIdentity.get(reservedIdentities.host) ?? [];
      const { selector } = policy.subject;
      if (policy.namespace === '') return selected(selector);
      if (selector.matchLabels[metaLabels.namespace] === policy.namespace) return selected(selector);
      return selected(selector).filter((i) => ends[i]!.party.pod!.namespace === policy.namespace);
    },
  };
}

/** Sorts as the bytes do. */
function keyOf(bytes: IpAddress['bytes']): string {
  return String.fromCharCode(...bytes);
}

function lastOf(bytes: Uint8Array, prefixBits: number): Uint8Array {
  return bytes.map((byte, i) => byte | (0xff >> Math.min(8, Math.max(0, prefixBits - i * 8))));
}

function lowerBound(list: readonly { key: string }[], key: string): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]!.key < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

function upperBound(list: readonly { key: string }[], key: string): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]!.key <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}
