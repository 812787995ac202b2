// Sorts every known address and block into a class: those that no policy in use can tell apart share a number. What
// tells them apart is the label identity, the policies' blocks around the address, and the numbers of the named ports
// that policies use. When policies begin or cease to use a block or a port name, only what it touches is sorted anew.
import { reservedIdentities } from '../../core/identity.ts';
import { type Cidr, formatAddress, type IpAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import {
  type AddressRow,
  type ClassRow,
  type IpcacheRow,
  ipcacheFlags,
  type NamedPort,
  type PrefixRow,
} from '../../core/rows.ts';
import type { Numbering } from './numbering.ts';
import { createPackedAddresses } from './packed-addresses.ts';
import { createPrefixSet } from './prefix-set.ts';

/** A class in use. */
export interface PolicyClass extends ClassRow {
  /** Of pods whose identity has not arrived: no selector finds them. */
  readonly pending: boolean;
  /** How many addresses and blocks are in it. */
  members: number;
  /** Its addresses that are pods of this node, or the node's own. While there are any, the class is a subject of policy. */
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

/** What is written of an address beside its class. */
type Place = Pick<IpcacheRow, 'ifindex' | 'endpointId' | 'flags'>;
const elsewhere: Place = { ifindex: 0, endpointId: 0, flags: 0 };

/** The sorter. Changes are collected and take effect at `sort`. */
export interface Classes {
  /** False when the address is none, or not in canonical text. */
  setAddress(row: AddressRow): boolean;
  deleteAddress(address: string): void;
  /** The row of an address as it was set last. */
  address(address: string): AddressRow | undefined;
  /** All addresses that are set. */
  addresses(): Iterable<string>;
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
  /** Classes of addresses where the API server answers too. */
  ofApiServers(): ReadonlySet<PolicyClass>;
  /** Classes in which some address has this port name. */
  byPortName(name: string, protocol: string): Iterable<PolicyClass>;
  ipcache(): IterableIterator<IpcacheRow>;
}

const none: ReadonlySet<PolicyClass> = new Set();
const noAddress: ReadonlySet<string> = new Set();

/** Rows of addresses and blocks that are in the kernel, by the number that each names. */
export type NumbersInKernel = Iterable<readonly [address: string, number: number]>;

/**
 * Makes an empty sorter. `inKernel` is asked in the first round for numbers that `numbering` has lost: a class keeps the one
 * that its addresses have there, so that no two ends of a connection are parted while rows are rewritten.
 */
export function createClasses(numbering: Numbering, inKernel?: () => NumbersInKernel): Classes {
  const members = createPackedAddresses();
  // Of each member, by its slot: the source row (none of a block), and the class that is written.
  const rows: (AddressRow | undefined)[] = [];
  const classOf: (PolicyClass | undefined)[] = [];
  /** Where members are, as written; most are elsewhere. */
  const places = new Map<number, Place>();
  const byKey = new Map<string, PolicyClass>();
  const byNumber = new Map<number, PolicyClass>();
  const byIdentity = new Map<number, Set<PolicyClass>>();
  const byBlock = new Map<string, Set<PolicyClass>>();
  const withPorts = new Set<PolicyClass>();
  const ofApiServers = new Set<PolicyClass>();
  const identities = new Map<string, number>();
  const localBlocks = new Set<string>();
  const identityBlocks = createPrefixSet();
  const policyBlocks = createPrefixSet();
  const portNames = new Map<string, number>();
  const dirty = new Set<string>();
  let lost = inKernel && { numberOf: new Map<string, number>(), addressesOf: new Map<number, string[]>(), read: false };

  function touchInside(outer: Cidr): void {
    for (const key of members.inside(outer)) dirty.add(key);
  }

  function wantBlock(cidr: Cidr, key: string, wanted: boolean): void {
    if (wanted && members.slotOf(key) === undefined) members.add(key, cidr);
    dirty.add(key);
    touchInside(cidr);
  }

  function identityAround(inner: IpAddress | Cidr): number {
    const longest = identityBlocks.containing(inner).at(-1);
    if (longest !== undefined) return identities.get(longest)!;
    return reservedIdentities[inner.family === 4 ? 'world-ipv4' : 'world-ipv6'];
  }

  function sortOne(key: string, changes: ClassChanges, old: Set<PolicyClass>): void {
    const slot = members.slotOf(key);
    if (slot === undefined) return;
    const source = rows[slot];
    const kept = members.isBlock(slot) ? policyBlocks.has(key) || identities.has(key) : source !== undefined;
    const next = kept ? classFor(key, members.address(slot), source, changes) : undefined;
    const before = classOf[slot];
    const written = before && ipcacheRow(key, before, places.get(slot) ?? elsewhere);
    if (before !== next || (next !== undefined && next.local.has(key) !== isLocal(source))) {
      if (before !== undefined) leave(before, key, changes, old);
      if (next !== undefined) join(next, key, source, changes);
      classOf[slot] = next;
    }
    if (next === undefined) {
      members.remove(key);
      places.delete(slot);
      if (written !== undefined) changes.ipcacheDelete.push(key);
      return;
    }
    const place = placeOf(source, localBlocks.has(key));
    if (place === elsewhere) places.delete(slot);
    else places.set(slot, place);
    const row = ipcacheRow(key, next, place);
    if (!sameIpcache(written, row)) changes.ipcacheUpsert.push(row);
  }

  /** What makes a class of an address, and the text to know it by. */
  function natureOf(address: IpAddress | Cidr, row: AddressRow | undefined) {
    const identity = row?.identity ?? identityAround(address);
    const pending = row?.pending === true;
    const apiServer = row?.apiServer === true;
    const prefixes = policyBlocks.containing(address).sort();
    const namedPorts = (row?.namedPorts ?? [])
      .filter(({ name, protocol }) => portNames.has(`${name}/${protocol}`))
      .sort(comparePorts);
    const ports = namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).join(',');
    const content = `${identity}${pending ? '?' : ''}${apiServer ? '+' : ''} ${prefixes.join(',')} ${ports}`;
    return { identity, pending, apiServer, prefixes, namedPorts, content };
  }

  /** Gives a class its number in the kernel, unless addresses of another class have that there, too. */
  function recover(content: string, key: string): void {
    if (lost === undefined || numbering.knows(content)) return;
    if (!lost.read) {
      lost.read = true;
      for (const [address, number] of inKernel!()) {
        lost.numberOf.set(address, number);
        const known = lost.addressesOf.get(number);
        if (known === undefined) lost.addressesOf.set(number, [address]);
        else known.push(address);
      }
    }
    const number = lost.numberOf.get(key);
    const addresses = number === undefined ? undefined : lost.addressesOf.get(number);
    if (number === undefined || addresses === undefined) return;
    lost.addressesOf.delete(number); // Whatever comes of it: nobody else gets it.
    const alike = addresses.every((other) => {
      const slot = members.slotOf(other);
      return slot === undefined || natureOf(members.address(slot), rows[slot]).content === content;
    });
    if (alike) numbering.adopt(content, number);
  }

  function classFor(
    key: string,
    address: IpAddress | Cidr,
    row: AddressRow | undefined,
    changes: ClassChanges,
  ): PolicyClass {
    const { content, identity, apiServer, prefixes, namedPorts, pending } = natureOf(address, row);
    const known = byKey.get(content);
    if (known !== undefined) return known;
    recover(content, key);
    const number = numbering.acquire(content);
    const made: PolicyClass = {
      class: number,
      identity,
      ...(apiServer && { apiServer }),
      prefixes,
      namedPorts,
      pending,
      members: 0,
      local: noAddress,
    };
    byKey.set(content, made);
    byNumber.set(number, made);
    addTo(byIdentity, identity, made);
    for (const prefix of prefixes) addTo(byBlock, prefix, made);
    if (namedPorts.length > 0) withPorts.add(made);
    if (apiServer) ofApiServers.add(made);
    contents.set(made, content);
    changes.added.push(made);
    return made;
  }
  const contents = new Map<PolicyClass, string>();

  function join(to: PolicyClass, key: string, row: AddressRow | undefined, changes: ClassChanges): void {
    to.members++;
    if (!isLocal(row)) return;
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
    ofApiServers.delete(gone);
    numbering.release(content);
  }

  return {
    setAddress(row) {
      const parsed = parseAddress(row.address);
      if (!parsed.ok || formatAddress(parsed.value) !== row.address) return false;
      rows[members.slotOf(row.address) ?? members.add(row.address, parsed.value)] = row;
      dirty.add(row.address);
      return true;
    },
    deleteAddress(address) {
      const slot = members.slotOf(address);
      if (slot === undefined || rows[slot] === undefined) return;
      rows[slot] = undefined;
      dirty.add(address);
    },
    address(address) {
      const slot = members.slotOf(address);
      return slot === undefined ? undefined : rows[slot];
    },
    *addresses() {
      for (const [address, slot] of members.entries()) if (rows[slot] !== undefined) yield address;
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
      for (const [address, slot] of members.entries()) {
        if (rows[slot]?.namedPorts.some((port) => port.name === name && port.protocol === protocol)) dirty.add(address);
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
      lost = undefined;
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
    ofApiServers: () => ofApiServers,
    *byPortName(name, protocol) {
      for (const candidate of withPorts) {
        if (candidate.namedPorts.some((port) => port.name === name && port.protocol === protocol)) yield candidate;
      }
    },
    *ipcache() {
      for (const [address, slot] of members.entries()) {
        const of = classOf[slot];
        if (of !== undefined) yield ipcacheRow(address, of, places.get(slot) ?? elsewhere);
      }
    },
  };
}

/** Whether an address is an endpoint of this node: a pod of it, or the node's own. */
export function isLocal(row: AddressRow | undefined): row is AddressRow {
  if (row === undefined) return false;
  return row.kind === 'host' || (row.kind === 'pod' && (row.endpointId > 0 || row.ifindex > 0));
}

function placeOf(row: AddressRow | undefined, localBlock: boolean): Place {
  const flags =
    (row?.kind === 'host' ? ipcacheFlags.thisNode : 0) |
    (row?.kind === 'nat' && row.here ? ipcacheFlags.nat : 0) |
    (localBlock ? ipcacheFlags.localBlock : 0);
  const { ifindex, endpointId } = row ?? elsewhere;
  return ifindex === 0 && endpointId === 0 && flags === 0 ? elsewhere : { ifindex, endpointId, flags };
}

function ipcacheRow(address: string, { class: number, identity }: PolicyClass, place: Place): IpcacheRow {
  const { ifindex, endpointId, flags } = place;
  return { address, class: number, identity, ifindex, endpointId, flags };
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
