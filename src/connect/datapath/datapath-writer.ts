// Carries classes, policy and addresses into the kernel. The order is the contract: a ruleset is complete before a peer
// points to it, policy is there before an address has the class it judges, epochs move after everything they announce,
// and what is no longer pointed to goes last. So no packet meets half of a policy, and no established one an old verdict.
import type { EndpointRow, IpcacheRow, PolicyPeerRow, PolicyPortRow } from '../../core/rows.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import type { MappedArray } from '../../kernel/mmap-array.ts';
import { addressBytes, blockKey, epochSlot } from './address-keys.ts';
import { createKernelMap, type KernelMap, type KernelMapStatus } from './kernel-map.ts';
import { createPolicyRows, type OverShare, type OwnersShare, type PolicyRows, type StandIn } from './policy-rows.ts';

/** What is to change, as the policy compiler says it. */
export interface DatapathDelta {
  readonly ports: { readonly upsert: readonly PolicyPortRow[]; readonly delete: readonly PolicyPortRow[] };
  /** `close` are fallbacks that deny: they come after the addresses, so that who is allowed is never shut out. */
  readonly peers: {
    readonly upsert: readonly PolicyPeerRow[];
    readonly close: readonly PolicyPeerRow[];
    readonly delete: readonly PolicyPeerRow[];
  };
  readonly ipcache: { readonly upsert: readonly IpcacheRow[]; readonly delete: readonly string[] };
  /** Addresses whose verdicts may have changed. */
  readonly subjects: readonly string[];
  /** To which namespace new subjects belong; empty for those of none. */
  readonly owners?: readonly (readonly [subject: number, namespace: string])[];
  /** Of whose policies new rulesets are made; empty for those of the whole cluster. */
  readonly rulesetOwners?: readonly (readonly [ruleset: number, namespace: string])[];
}

/** The maps that are written here. */
export interface DatapathMaps {
  readonly ipcache: BpfMap;
  readonly ipcachePrefix: BpfMap;
  readonly policyPeer: BpfMap;
  readonly policyPorts: BpfMap;
  readonly endpoints: BpfMap;
  readonly epochs: MappedArray;
}

/** The one writer of the policy and address maps. */
export interface DatapathWriter {
  apply(delta: DatapathDelta): void;
  putEndpoint(row: EndpointRow): void;
  removeEndpoint(row: EndpointRow): void;
  /** Takes the maps over again: what is applied next is everything there is, and then prune. */
  restart(): void;
  /** The first complete state has been applied: what an earlier run left and nobody wants any more goes. */
  prune(): void;
  /** Everything established is judged again at its next packet: routes or blocks changed. */
  raiseAll(): void;
  retry(): boolean;
  status(): KernelMapStatus[];
  /** Policy that did not fit; `unplaced` are addresses and blocks, which are judged by the block around them, or not at all. */
  policyStatus(): ReturnType<PolicyRows['status']> & { readonly unplaced: number };
  /** What keeps policy from being in the kernel whole: an address without its class is judged as somebody else. */
  policyProblem(): string | undefined;
}

/** This part of the rows of addresses is for the node's own and its pods': those of others must not keep them out. */
const reservedPart = 1 / 16;

/** Takes the maps over as they are. `share` bounds the rows of policy that the pods and policies of one namespace have together. */
export function createDatapathWriter(maps: DatapathMaps, share?: OwnersShare): DatapathWriter {
  let writing = takeOver(maps, share);
  return {
    apply: (delta) => writing.apply(delta),
    putEndpoint: (row) => writing.putEndpoint(row),
    removeEndpoint: (row) => writing.removeEndpoint(row),
    restart() {
      writing = takeOver(maps, share);
    },
    prune: () => writing.prune(),
    raiseAll: () => writing.raiseAll(),
    retry: () => writing.retry(),
    status: () => writing.status(),
    policyStatus: () => writing.policyStatus(),
    policyProblem: () => writing.policyProblem(),
  };
}

function takeOver(maps: DatapathMaps, share: OwnersShare | undefined): Omit<DatapathWriter, 'restart'> {
  const ipcache = createKernelMap(maps.ipcache, {
    reserve: { rows: Math.floor(maps.ipcache.maxEntries * reservedPart), isFor: isOfThisNode },
  });
  const prefixes = createKernelMap(maps.ipcachePrefix);
  const peers = createKernelMap(maps.policyPeer);
  const ports = createKernelMap(maps.policyPorts);
  const endpoints = createKernelMap(maps.endpoints);
  const all: readonly KernelMap[] = [ports, peers, ipcache, prefixes, endpoints];
  const policy = createPolicyRows(peers, ports, share);
  /** The classes of addresses and blocks without room. */
  const unplaced = new Map<string, number>();
  const { epochs } = maps;
  const wordsPerSlot = epochs.strideBytes / 4;

  function raise(bytes: Uint8Array): void {
    Atomics.add(epochs.u32, epochSlot(bytes) * wordsPerSlot, 1);
  }

  function raiseAll(): void {
    for (let i = 0; i < epochs.u32.length; i += wordsPerSlot) Atomics.add(epochs.u32, i, 1);
  }

  function putAddresses(rows: readonly IpcacheRow[]): void {
    const addresses = [];
    for (const row of rows) {
      const { address, class: number, identity, ifindex, flags } = row;
      const entry = { class: number, identity, ifindex, flags };
      if (address.includes('/')) {
        const key = datapathMaps.ipcache_prefix.key.encode(blockKey(address));
        place(address, number, prefixes.put(key, datapathMaps.ipcache_prefix.value.encode(entry), address));
      } else {
        const key = datapathMaps.ipcache.key.encode({ addr: addressBytes(address) });
        addresses.push({ key, value: datapathMaps.ipcache.value.encode(entry), address, number });
      }
    }
    // Where classes have new numbers, one end with its old and one with its new number do not know each other.
    ipcache.replaceTogether(addresses);
    for (const { key, value, address, number } of addresses) place(address, number, ipcache.put(key, value, address));
  }

  function place(address: string, number: number, fits: boolean): void {
    if (fits) unplaced.delete(address);
    else unplaced.set(address, number);
  }

  /** The class by which the datapath judges an address, or what is in a block and in no narrower one. */
  function judgedAs(address: string): number {
    const key = address.includes('/') ? blockKey(address) : { prefixlen: 128, addr: addressBytes(address) };
    const own = address.includes('/') ? undefined : ipcache.get(datapathMaps.ipcache.key.encode({ addr: key.addr }));
    const found = own ?? prefixes.get(datapathMaps.ipcache_prefix.key.encode(key));
    return found === undefined ? 0 : datapathMaps.ipcache_prefix.value.decode(found).class;
  }

  /** Lets policy know who is judged as somebody else; true when that closed or opened something. */
  function standIn(again = false): boolean {
    const pairs = new Map<string, StandIn>();
    for (const [address, of] of unplaced) {
      const as = judgedAs(address);
      if (as !== of) pairs.set(`${of} ${as}`, { of, as });
    }
    return policy.standIn([...pairs.values()], again);
  }

  function removeAddress(address: string): void {
    unplaced.delete(address);
    if (address.includes('/')) prefixes.remove(datapathMaps.ipcache_prefix.key.encode(blockKey(address)), address);
    else ipcache.remove(datapathMaps.ipcache.key.encode({ addr: addressBytes(address) }), address);
  }

  function retry(): boolean {
    const failing = () => all.reduce((sum, map) => sum + map.status().failing.length, 0);
    const before = failing();
    if (before === 0 && policy.status().waiting === 0) return false;
    for (const map of all) map.retry();
    if (unplaced.size > 0) {
      const failed = new Set([ipcache, prefixes].flatMap((map) => map.status().failing.map((each) => each.row)));
      for (const address of unplaced.keys()) if (!failed.has(address)) unplaced.delete(address);
    }
    const fits = policy.retry();
    const moved = standIn();
    const left = failing();
    // What came late was announced before it was there.
    if (left < before || fits || moved) raiseAll();
    return left > 0 || policy.status().waiting > 0;
  }

  return {
    apply(delta) {
      for (const [subject, namespace] of delta.owners ?? []) policy.own(subject, namespace);
      for (const [ruleset, namespace] of delta.rulesetOwners ?? []) policy.ownRuleset(ruleset, namespace);
      for (const row of delta.ports.upsert) policy.putPort(row);
      for (const row of delta.peers.upsert) policy.putPeer(row);
      putAddresses(delta.ipcache.upsert);
      for (const address of delta.ipcache.delete) removeAddress(address);
      for (const row of delta.peers.close) policy.putPeer(row);
      for (const row of delta.peers.delete) policy.removePeer(row);
      const moved = standIn();
      const changed = [...delta.ipcache.upsert.map((row) => row.address), ...delta.ipcache.delete];
      // A block that means something else concerns addresses that nobody can list.
      if (moved || changed.some((address) => address.includes('/'))) raiseAll();
      else for (const address of [...changed, ...delta.subjects]) raise(addressBytes(address));
      for (const row of delta.ports.delete) policy.removePort(row);
      // Who waits gets the room that was made by this.
      const gone = delta.ports.delete.length + delta.peers.delete.length + delta.ipcache.delete.length;
      if (gone > 0 && policy.status().waiting + unplaced.size > 0) retry();
    },
    putEndpoint(row) {
      const none = new Uint8Array(16);
      const value = datapathMaps.endpoints.value.encode({
        id: row.id,
        identity: row.identity,
        ip4: row.ipv4 === undefined ? none : addressBytes(row.ipv4),
        ip6: row.ipv6 === undefined ? none : addressBytes(row.ipv6),
      });
      endpoints.put(datapathMaps.endpoints.key.encode(row.ifindex), value, `${row.namespace}/${row.pod}`);
    },
    removeEndpoint(row) {
      endpoints.remove(datapathMaps.endpoints.key.encode(row.ifindex), `${row.namespace}/${row.pod}`);
    },
    prune() {
      for (const map of [prefixes, ipcache, endpoints, peers, ports]) map.prune();
      retry();
      standIn(true);
    },
    raiseAll,
    retry,
    status: () => all.map((map) => map.status()),
    policyStatus: () => ({ ...policy.status(), unplaced: unplaced.size }),
    policyProblem() {
      const { waiting, over } = policy.status();
      const full = all.map((map) => map.status()).filter((map) => map.failing.length > 0);
      const texts = full.map((map) => `${map.failing.length} rows of map ${map.name} cannot be written`);
      if (waiting > 0) texts.unshift(`there is no room in the maps of policy for ${waiting} rows`);
      for (const each of over) texts.unshift(overText(each));
      return texts.length === 0 ? undefined : texts.join('; ');
    },
  };
}

/** What is said of a namespace that needs more rows than it may have. */
export function overText({ owner, map, share }: OverShare): string {
  return `the namespace ${owner} needs more than ${share} rows of ${map} on this node, and may have no more: what is beyond is closed`;
}

/** Whether a row of an address is a pod's of this node or the node's own. */
function isOfThisNode(value: Uint8Array): boolean {
  const { ifindex, flags } = datapathMaps.ipcache.value.decode(value);
  return ifindex !== 0 || flags !== 0;
}
