// Carries classes, policy and addresses into the kernel. The order is the contract: a ruleset is complete before a peer
// points to it, policy is there before an address has the class it judges, epochs move after everything they announce,
// and what is no longer pointed to goes last. So no packet meets half of a policy, and no established one an old verdict.
import type { EndpointRow, IpcacheRow, PolicyPeerRow, PolicyPortRow } from '../../core/rows.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import type { MappedArray } from '../../kernel/mmap-array.ts';
import { addressBytes, blockKey, epochSlot } from './address-keys.ts';
import { createKernelMap, type KernelMap, type KernelMapStatus } from './kernel-map.ts';
import { createPolicyRows, type PolicyRows } from './policy-rows.ts';

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
  /** The first complete state has been applied: what an earlier run left and nobody wants any more goes. */
  prune(): void;
  /** Everything established is judged again at its next packet: routes or blocks changed. */
  raiseAll(): void;
  retry(): boolean;
  status(): KernelMapStatus[];
  /** Policy that did not fit. */
  policyStatus(): ReturnType<PolicyRows['status']>;
  /** What keeps policy from being in the kernel whole: an address without its class is judged as somebody else. */
  policyProblem(): string | undefined;
}

/** Takes the maps over as they are. */
export function createDatapathWriter(maps: DatapathMaps): DatapathWriter {
  const ipcache = createKernelMap(maps.ipcache);
  const prefixes = createKernelMap(maps.ipcachePrefix);
  const peers = createKernelMap(maps.policyPeer);
  const ports = createKernelMap(maps.policyPorts);
  const endpoints = createKernelMap(maps.endpoints);
  const all: readonly KernelMap[] = [ports, peers, ipcache, prefixes, endpoints];
  const policy = createPolicyRows(peers, ports);
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
        prefixes.put(key, datapathMaps.ipcache_prefix.value.encode(entry), address);
      } else {
        const key = datapathMaps.ipcache.key.encode({ addr: addressBytes(address) });
        addresses.push({ key, value: datapathMaps.ipcache.value.encode(entry), address });
      }
    }
    // Where classes have new numbers, one end with its old and one with its new number do not know each other.
    ipcache.replaceTogether(addresses);
    for (const { key, value, address } of addresses) ipcache.put(key, value, address);
  }

  function removeAddress(address: string): void {
    if (address.includes('/')) prefixes.remove(datapathMaps.ipcache_prefix.key.encode(blockKey(address)), address);
    else ipcache.remove(datapathMaps.ipcache.key.encode({ addr: addressBytes(address) }), address);
  }

  function retry(): boolean {
    const failing = () => all.reduce((sum, map) => sum + map.status().failing.length, 0);
    const before = failing();
    if (before === 0 && policy.status().waiting === 0) return false;
    for (const map of all) map.retry();
    const fits = policy.retry();
    const left = failing();
    // What came late was announced before it was there.
    if (left < before || fits) raiseAll();
    return left > 0 || policy.status().waiting > 0;
  }

  return {
    apply(delta) {
      for (const row of delta.ports.upsert) policy.putPort(row);
      for (const row of delta.peers.upsert) policy.putPeer(row);
      putAddresses(delta.ipcache.upsert);
      for (const address of delta.ipcache.delete) removeAddress(address);
      for (const row of delta.peers.close) policy.putPeer(row);
      for (const row of delta.peers.delete) policy.removePeer(row);
      const changed = [...delta.ipcache.upsert.map((row) => row.address), ...delta.ipcache.delete];
      // A block that means something else concerns addresses that nobody can list.
      if (changed.some((address) => address.includes('/'))) raiseAll();
      else for (const address of [...changed, ...delta.subjects]) raise(addressBytes(address));
      for (const row of delta.ports.delete) policy.removePort(row);
      // Who waits gets the room that was made by this.
      if (delta.ports.delete.length + delta.peers.delete.length > 0 && policy.status().waiting > 0) retry();
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
    },
    raiseAll,
    retry,
    status: () => all.map((map) => map.status()),
    policyStatus: policy.status,
    policyProblem() {
      const { waiting } = policy.status();
      const full = all.map((map) => map.status()).filter((map) => map.failing.length > 0);
      const texts = full.map((map) => `${map.failing.length} rows of map ${map.name} cannot be written`);
      if (waiting > 0) texts.unshift(`there is no room in the maps of policy for ${waiting} rows`);
      return texts.length === 0 ? undefined : texts.join('; ');
    },
  };
}
