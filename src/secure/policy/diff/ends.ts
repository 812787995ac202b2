// Everybody whom policies can tell apart: pods by identity, named ports and the blocks they are in; nodes and entities; and
// of the addresses outside one for each part of the blocks that policies mention.
import { podOfIdentity, reservedIdentities, reservedName } from '../../../core/identity.ts';
import {
  type Cidr,
  cidrContains,
  formatAddress,
  formatCidr,
  hostCidr,
  type IpAddress,
  parseAddress,
  parseCidr,
} from '../../../core/ip.ts';
import type { AddressRow, PolicyPeer, PolicyRow } from '../../../core/rows.ts';
import { type Party, type PolicyModel, partyOf } from '../evaluate.ts';

/** Some addresses that no policy can tell apart. */
export interface End {
  readonly name: string;
  readonly party: Party;
  /** Bit 0: it has an IPv4 address; bit 1: an IPv6 address. Ends without a family in common never meet. */
  readonly families: number;
  /** How many pods it stands for; 0 for what is no pod. */
  readonly pods: number;
}

/** The ends that the policies of some models tell apart. The models differ in policies and namespaces only. */
export function endsOf(models: readonly PolicyModel[]): End[] {
  const [{ addresses, identities }] = models as [PolicyModel];
  const peers = models.flatMap((model) => model.policies.flatMap(peersOfPolicy));
  const all = blockTree(peers, () => true);
  const ofPods = blockTree(peers, (peer) => peer.reach === 'any');
  const labelsOf = new Map(identities.map((row) => [row.id, row.labels]));
  const groups = new Map<string, { rows: AddressRow[]; party: Party; families: number }>();
  for (const row of addresses) {
    const parsed = parseAddress(row.address);
    if (!parsed.ok) continue;
    const address = parsed.value;
    const labels = row.pending ? undefined : labelsOf.get(row.identity);
    const pod = labels && podOfIdentity(labels);
    const isPod = row.kind === 'pod';
    const inside = deepest(isPod ? ofPods : all, address);
    const family = address.family === 4 ? 1 : 2;
    const ports = row.namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}/${port}`).sort();
    const key = [
      row.identity,
      isPod,
      pod === undefined,
      row.apiServer === true,
      inside,
      ports.join(),
      isPod ? '' : row.kind,
    ].join(' ');
    const group = groups.get(key);
    if (group === undefined) {
      const { identity, namedPorts, apiServer = false } = row;
      const party = { address, identity, apiServer, isPod, ...(pod && { pod }), namedPorts };
      groups.set(key, { rows: [row], party, families: family });
    } else {
      group.rows.push(row);
      group.families |= family;
    }
  }
  const known = [...groups.values()].map(({ rows, party, families }): End => {
    const pods = new Set(rows.map((row) => (row.kind === 'pod' ? `${row.namespace}/${row.pod}` : ''))).size;
    return { name: nameOfRows(rows, party), party, families, pods: party.isPod ? pods : 0 };
  });
  const first = models[0]!;
  const outside = outsideAddresses(peers, first).map(({ address, block }): End => {
    const party = partyOf({ ...first, addresses: [] }, formatAddress(address));
    return { name: nameOfBlock(block, party.identity), party, families: address.family === 4 ? 1 : 2, pods: 0 };
  });
  return [...known, ...outside, ...entityEnds([...known, ...outside])];
}

/** All peers of a policy. */
function peersOfPolicy(policy: PolicyRow): PolicyPeer[] {
  return [...policy.ingress, ...policy.egress].flatMap((rule) => rule.peers ?? []);
}

type Block = Extract<PolicyPeer, { kind: 'block' }>;

/** Blocks by their masked text, so that the longest one around an address is found by trying every length in use. */
interface BlockTree {
  readonly lengths: Readonly<Record<4 | 6, readonly number[]>>;
  readonly texts: ReadonlySet<string>;
}

function blockTree(peers: readonly PolicyPeer[], counts: (peer: Block) => boolean): BlockTree {
  const lengths = { 4: new Set<number>(), 6: new Set<number>() };
  const texts = new Set<string>();
  for (const peer of peers) {
    if (peer.kind !== 'block' || !counts(peer)) continue;
    for (const text of [peer.cidr, ...peer.except]) {
      const parsed = parseCidr(text);
      if (!parsed.ok) continue;
      lengths[parsed.value.family].add(parsed.value.prefixBits);
      texts.add(keyOf(parsed.value, parsed.value.prefixBits));
    }
  }
  const sorted = (family: 4 | 6): number[] => [...lengths[family]].sort((a, b) => b - a);
  return { lengths: { 4: sorted(4), 6: sorted(6) }, texts };
}

/** Blocks contain each other or have nothing in common: the longest one says which of all hold the address. */
function deepest({ lengths, texts }: BlockTree, address: IpAddress): string {
  for (const bits of lengths[address.family]) {
    const key = keyOf(address, bits);
    if (texts.has(key)) return key;
  }
  return '';
}

/** A text that is equal for addresses with the same first bits. */
function keyOf({ family, bytes }: IpAddress, bits: number): string {
  let text = `${family}/${bits}/`;
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) text += String.fromCharCode(bytes[i]!);
  if (bits & 7) text += String.fromCharCode(bytes[whole]! & (0xff00 >> (bits & 7)) & 0xff);
  return text;
}

/** One address for each part of the address space that policies tell apart, leaving out those that somebody has. */
function outsideAddresses(peers: readonly PolicyPeer[], model: PolicyModel): { address: IpAddress; block: Cidr }[] {
  const blocks = new Map<string, Cidr>();
  const add = (text: string): void => {
    const parsed = parseCidr(text);
    if (parsed.ok) blocks.set(formatCidr(parsed.value), parsed.value);
  };
  for (const text of ['0.0.0.0/0', '::/0', ...model.prefixes.map((row) => row.cidr)]) add(text);
  for (const peer of peers) if (peer.kind === 'block') for (const text of [peer.cidr, ...peer.except]) add(text);
  const taken = model.addresses.flatMap((row) => {
    const parsed = parseAddress(row.address);
    return parsed.ok ? [hostCidr(parsed.value)] : [];
  });
  // Outer blocks before inner ones, in the order of addresses: each one's parts follow it.
  const sorted = [...blocks.values()].map((cidr) => ({ cidr, own: true }));
  const all = [...sorted, ...taken.map((cidr) => ({ cidr, own: false }))].sort((a, b) => compare(a.cidr, b.cidr));
  const parts = new Map<Cidr, Cidr[]>();
  const around: { cidr: Cidr; own: boolean }[] = [];
  for (const each of all) {
    while (around.length > 0 && !cidrContains(around.at(-1)!.cidr, each.cidr)) around.pop();
    const parent = around.at(-1);
    if (parent !== undefined) parts.get(parent.cidr)!.push(each.cidr);
    parts.set(each.cidr, []);
    around.push(each);
  }
  return sorted.flatMap(({ cidr }) => {
    const address = freeAddress(cidr, parts.get(cidr)!);
    return address === undefined ? [] : [{ address, block: cidr }];
  });
}

function compare(a: Cidr, b: Cidr): number {
  if (a.family !== b.family) return a.family - b.family;
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return a.bytes[i]! - b.bytes[i]!;
  return a.prefixBits - b.prefixBits;
}

/** An address of a block that is in none of its parts; undefined when they cover it. */
function freeAddress(block: Cidr, parts: readonly Cidr[]): IpAddress | undefined {
  if (parts.length === 0) return { family: block.family, bytes: representative(block) };
  if (parts.some((part) => part.prefixBits <= block.prefixBits)) return undefined;
  // The half with fewer parts is likelier to have room.
  const halves = [0, 1].map((bit) => {
    const bytes = Uint8Array.from(block.bytes);
    if (bit === 1) bytes[block.prefixBits >> 3]! |= 0x80 >> (block.prefixBits & 7);
    const half: Cidr = { family: block.family, bytes, prefixBits: block.prefixBits + 1 };
    return { half, inside: parts.filter((part) => cidrContains(half, part)) };
  });
  halves.sort((a, b) => a.inside.length - b.inside.length);
  for (const { half, inside } of halves) {
    const found = freeAddress(half, inside);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Not the first address of a block, which reads like the block itself. */
function representative(block: Cidr): Uint8Array {
  const bytes = Uint8Array.from(block.bytes);
  if (block.prefixBits < bytes.length * 8) bytes[bytes.length - 1]! |= 1;
  return bytes;
}

/** Entities that nobody has an address of: policies speak of them all the same. */
function entityEnds(known: readonly End[]): End[] {
  const { host, 'remote-node': remote, 'kube-apiserver': apiServer, health, ingress, unmanaged } = reservedIdentities;
  return [host, remote, apiServer, health, ingress, unmanaged]
    .filter((identity) => !known.some((end) => end.party.identity === identity))
    .map((identity) => ({
      name: reservedName(identity)!,
      party: { identity, apiServer: identity === apiServer, isPod: false, namedPorts: [] },
      families: 3,
      pods: 0,
    }));
}

function nameOfRows(rows: readonly AddressRow[], party: Party): string {
  const [row] = rows as [AddressRow];
  if (!party.isPod) {
    const name = reservedName(party.identity) ?? String(party.identity);
    const address = rows.length === 1 ? ` ${row.address}` : '';
    return party.apiServer && name !== 'kube-apiserver' ? `${name}${address} (kube-apiserver)` : `${name}${address}`;
  }
  if (row.pod === undefined) return `${row.address}`;
  const names = new Set(rows.map((each) => each.workload?.name ?? each.pod));
  const own = `${row.namespace}/${names.size === 1 ? [...names][0] : row.pod}`;
  const others = names.size - 1;
  return others === 0 ? own : `${own} (and ${others} like it)`;
}

function nameOfBlock(block: Cidr, identity: number): string {
  const text = formatCidr(block);
  if (block.prefixBits === 0) return block.family === 4 ? 'world (IPv4)' : 'world (IPv6)';
  const name = reservedName(identity);
  return name === undefined || name.startsWith('world') ? text : `${text} (${name})`;
}
