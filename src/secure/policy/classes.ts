// Sorts every known address and block into a class: those that no policy in use can tell apart share a number. What
// tells them apart is the label identity, the policies' blocks around the address, and the numbers of the named ports
// that policies use. When policies begin or cease to use a block or a port name, only what it touches is sorted anew.
import { reservedIdentities } from '../../core/identity.ts';
import { type Cidr, cidrContains, formatAddress, type IpAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import {
  type AddressRow,
  type ClassRow,
  type IpcacheRow,
  ipcacheFlags,
  type NamedPort,
  type PrefixRow,
} from '../../core/rows.ts';
import type { Numbering } from './numbering.ts';
import { createPrefixSet } from './prefix-set.ts';

/** A class in use. */
export interface PolicyClass extends ClassRow {
  /** Of pods whose identity has not arrived: no selector finds them. */
  readonly pending: boolean;
  /** How many addresses and blocks are in it. */
  members: number;
  /** Its addresses that are pods of this node. While there are any, the class is a subject of policy. */
  local: ReadonlySet<string>;
}

/** What a round of sorting changed. */
export interface ClassChanges {
  readonly added: PolicyClass[];
  /** Classes without members; their numbers rest. */
  readonly removed: PolicyClass[];
  /** Classes that became subjects, or ceased to be. */
  readonly localChanged: Set<PolicyClass>;
  readonly ipcacheUpsert: IpcacheRow[];
  readonly ipcacheDelete: string[];
}

interface Member {
  readonly address: IpAddress | Cidr;
  /** The source row; none for blocks. */
  row?: AddressRow;
  class?: PolicyClass;
  written?: IpcacheRow;
}

/** The sorter. Changes are collected and take effect at `sort`. */
export interface Classes {
  setAddress(row: AddressRow): void;
  deleteAddress(address: string): void;
  setPrefix(row: PrefixRow): void;
  deletePrefix(cidr: string): void;
  /** Policies use a block or a port name, or do so no longer. Uses are counted. */
  useBlock(cidr: string, by: 1 | -1): void;
  usePortName(name: string, protocol: string, by: 1 | -1): void;
  sort(): ClassChanges;
  all(): IterableIterator<PolicyClass>;
  byNumber(number: number): PolicyClass | undefined;
  byIdentity(identity: number): ReadonlySet<PolicyClass>;
  byBlock(cidr: string): ReadonlySet<PolicyClass>;
  /** Classes in which some address has this port name. */
  byPortName(name: string, protocol: string): Iterable<PolicyClass>;
  ipcache(): IterableIterator<IpcacheRow>;
}

const none: ReadonlySet<PolicyClass> = new Set();
const noAddress: ReadonlySet<string> = new Set();

/** Makes an empty sorter. */
export function createClasses(numbering: Numbering): Classes {
  const members = new Map<string, Member>();
  const addressRows = new Set<string>();
  const byKey = new Map<string, PolicyClass>();
  const byNumber = new Map<number, PolicyClass>();
  const byIdentity = new Map<number, Set<PolicyClass>>();
  const byBlock = new Map<string, Set<PolicyClass>>();
  const withPorts = new Set<PolicyClass>();
  const identities = new Map<string, number>();
  const localBlocks = new Set<string>();
  const identityBlocks = createPrefixSet();
  const policyBlocks = createPrefixSet();
  const portNames = new Map<string, number>();
  const dirty = new Set<string>();

  function touchInside(outer: Cidr): void {
    for (const [key, member] of members) if (cidrContains(outer, member.address)) dirty.add(key);
  }

  function wantBlock(cidr: Cidr, key: string, wanted: boolean): void {
    if (wanted && !members.has(key)) members.set(key, { address: cidr });
    dirty.add(key);
    touchInside(cidr);
  }

  function identityAround(inner: IpAddress | Cidr): number {
    const longest = identityBlocks.containing(inner).at(-1);
    if (longest !== undefined) return identities.get(longest)!;
    return reservedIdentities[inner.family === 4 ? 'world-ipv4' : 'world-ipv6'];
  }

  function sortOne(key: string, changes: ClassChanges, old: Set<PolicyClass>): void {
    const member = members.get(key);
    if (member === undefined) return;
    const isBlock = 'prefixBits' in member.address;
    const kept = isBlock ? policyBlocks.has(key) || identities.has(key) : addressRows.has(key);
    const next = kept ? classFor(member, changes) : undefined;
    const before = member.class;
    if (before !== next || (next !== undefined && next.local.has(key) !== isLocal(member.row))) {
      if (before !== undefined) leave(before, key, changes, old);
      if (next !== undefined) join(next, key, member, changes);
      member.class = next;
    }
    const row = next && ipcacheRow(key, member, next, localBlocks.has(key));
    if (row === undefined) {
      members.delete(key);
      if (member.written !== undefined) changes.ipcacheDelete.push(key);
    } else if (!sameIpcache(member.written, row)) {
      changes.ipcacheUpsert.push(row);
      member.written = row;
    }
  }

  function classFor(member: Member, changes: ClassChanges): PolicyClass {
    const { row } = member;
    const identity = row?.identity ?? identityAround(member.address);
    const pending = row?.pending === true;
    const prefixes = policyBlocks.containing(member.address).sort();
    const namedPorts = (row?.namedPorts ?? [])
      .filter(({ name, protocol }) => portNames.has(`${name}/${protocol}`))
      .sort(comparePorts);
    const ports = namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).join(',');
    const content = `${identity}${pending ? '?' : ''} ${prefixes.join(',')} ${ports}`;
    const known = byKey.get(content);
    if (known !== undefined) return known;
    const number = numbering.acquire(content);
    const made: PolicyClass = { class: number, identity, prefixes, namedPorts, pending, members: 0, local: noAddress };
    byKey.set(content, made);
    byNumber.set(number, made);
    addTo(byIdentity, identity, made);
    for (const prefix of prefixes) addTo(byBlock, prefix, made);
    if (namedPorts.length > 0) withPorts.add(made);
    contents.set(made, content);
    changes.added.push(made);
    return made;
  }
  const contents = new Map<PolicyClass, string>();

  function join(to: PolicyClass, key: string, member: Member, changes: ClassChanges): void {
    to.members++;
    if (!isLocal(member.row)) return;
    if (to.local.size === 0) changes.localChanged.add(to);
    // Most classes are remote: they share the empty set.
    if (to.local === noAddress) to.local = new Set([key]);
    else (to.local as Set<string>).add(key);
  }

  function leave(from: PolicyClass, key: string, changes: ClassChanges, old: Set<PolicyClass>): void {
    from.members--;
    if (from.local !== noAddress && (from.local as Set<string>).delete(key) && from.local.size === 0) {
      changes.localChanged.add(from);
    }
    if (from.members === 0) old.add(from);
  }

  function drop(gone: PolicyClass): void {
    const content = contents.get(gone)!;
    contents.delete(gone);
    byKey.delete(content);
    byNumber.delete(gone.class);
    removeFrom(byIdentity, gone.identity, gone);
    for (const prefix of gone.prefixes) removeFrom(byBlock, prefix, gone);
    withPorts.delete(gone);
    numbering.release(content);
  }

  return {
    setAddress(row) {
      const parsed = parseAddress(row.address);
      if (!parsed.ok || formatAddress(parsed.value) !== row.address) return;
      const member = members.get(row.address);
      if (member === undefined) members.set(row.address, { address: parsed.value, row });
      else member.row = row;
      addressRows.add(row.address);
      dirty.add(row.address);
    },
    deleteAddress(address) {
      if (addressRows.delete(address)) dirty.add(address);
    },
    setPrefix({ cidr: text, identity, local }) {
      const parsed = parseCidr(text);
      if (!parsed.ok) return;
      if (!identities.has(text)) identityBlocks.add(parsed.value);
      identities.set(text, identity);
      if (local) localBlocks.add(text);
      else localBlocks.delete(text);
      wantBlock(parsed.value, text, true);
    },
    deletePrefix(text) {
      const parsed = parseCidr(text);
      if (!parsed.ok || !identities.delete(text)) return;
      identityBlocks.remove(parsed.value);
      localBlocks.delete(text);
      wantBlock(parsed.value, text, false);
    },
    useBlock(text, by) {
      const parsed = parseCidr(text);
      if (!parsed.ok) return;
      const changed = by > 0 ? policyBlocks.add(parsed.value) : policyBlocks.remove(parsed.value);
      if (changed) wantBlock(parsed.value, text, by > 0);
    },
    usePortName(name, protocol, by) {
      const key = `${name}/${protocol}`;
      const before = portNames.get(key) ?? 0;
      if (before + by > 0) portNames.set(key, before + by);
      else portNames.delete(key);
      if (before > 0 && before + by > 0) return;
      for (const [address, { row }] of members) {
        if (row?.namedPorts.some((port) => port.name === name && port.protocol === protocol)) dirty.add(address);
      }
    },
    sort() {
      const changes: ClassChanges = {
        added: [],
        removed: [],
        localChanged: new Set(),
        ipcacheUpsert: [],
        ipcacheDelete: [],
      };
      const old = new Set<PolicyClass>();
      for (const key of dirty) sortOne(key, changes, old);
      dirty.clear();
      for (const candidate of old) {
        if (candidate.members > 0) continue;
        drop(candidate);
        changes.removed.push(candidate);
      }
      return changes;
    },
    all: () => byNumber.values(),
    byNumber: (number) => byNumber.get(number),
    byIdentity: (identity) => byIdentity.get(identity) ?? none,
    byBlock: (cidr) => byBlock.get(cidr) ?? none,
    *byPortName(name, protocol) {
      for (const candidate of withPorts) {
        if (candidate.namedPorts.some((port) => port.name === name && port.protocol === protocol)) yield candidate;
      }
    },
    *ipcache() {
      for (const { written } of members.values()) if (written !== undefined) yield written;
    },
  };
}

function isLocal(row: AddressRow | undefined): boolean {
  return row !== undefined && row.kind === 'pod' && (row.endpointId > 0 || row.ifindex > 0);
}

function ipcacheRow(address: string, { row }: Member, of: PolicyClass, localBlock: boolean): IpcacheRow {
  let flags: number = row?.kind === 'host' ? ipcacheFlags.thisNode : 0;
  if (localBlock) flags |= ipcacheFlags.localBlock;
  const { class: number, identity } = of;
  return { address, class: number, identity, ifindex: row?.ifindex ?? 0, endpointId: row?.endpointId ?? 0, flags };
}

function sameIpcache(a: IpcacheRow | undefined, b: IpcacheRow): boolean {
  return (
    a !== undefined &&
    a.class === b.class &&
    a.identity === b.identity &&
    a.ifindex === b.ifindex &&
    a.endpointId === b.endpointId &&
    a.flags === b.flags
  );
}

function comparePorts(a: NamedPort, b: NamedPort): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  if (a.protocol !== b.protocol) return a.protocol < b.protocol ? -1 : 1;
  return a.port - b.port;
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
