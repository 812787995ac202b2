// Looks a connection up in compiled rows the way the kernel does: address -> class, (subject, direction, peer) ->
// ruleset with a fallback to peer 0, longest prefix of protocol and port, and the fallback's ruleset when none matches.
import { formatCidr, maskAddress, parseAddress } from '../../core/ip.ts';
import {
  type Direction,
  type IpcacheRow,
  ipcacheFlags,
  type PolicyPeerRow,
  type PolicyPortRow,
  policyPeerKey,
  policyPortKey,
} from '../../core/rows.ts';
import type { Connection } from './evaluate.ts';
import type { PolicyDelta } from './policy-delta.ts';
import { widen } from './port-prefix.ts';

/** What the compiled rows say about one end of a connection. */
export interface CompiledVerdict {
  readonly allowed: boolean;
  readonly cookie: number;
  readonly stagedAllowed: boolean;
}

/** Compiled rows as the kernel would hold them. */
export interface CompiledMaps {
  readonly ipcache: Map<string, IpcacheRow>;
  readonly peers: Map<string, PolicyPeerRow>;
  readonly ports: Map<string, PolicyPortRow>;
}

/** Makes empty maps. */
export function createCompiledMaps(): CompiledMaps {
  return { ipcache: new Map(), peers: new Map(), ports: new Map() };
}

/** Writes a delta in the order that the agent writes it, calling `step` after each part. */
export function applyDelta(maps: CompiledMaps, delta: PolicyDelta, step: () => void = () => {}): void {
  const parts = [
    () => put(maps.ports, delta.ports.upsert, policyPortKey),
    ...delta.peers.upsert.map((row) => () => put(maps.peers, [row], policyPeerKey)),
    ...delta.ipcache.upsert.map((row) => () => put(maps.ipcache, [row], (changed) => changed.address)),
    () => remove(maps.ipcache, delta.ipcache.delete),
    ...delta.peers.close.map((row) => () => put(maps.peers, [row], policyPeerKey)),
    () => remove(maps.peers, delta.peers.delete.map(policyPeerKey)),
    () => remove(maps.ports, delta.ports.delete.map(policyPortKey)),
  ];
  for (const part of parts) {
    part();
    step();
  }
}

function put<R>(map: Map<string, R>, rows: readonly R[], keyOf: (row: R) => string): void {
  for (const row of rows) map.set(keyOf(row), row);
}

function remove(map: Map<string, unknown>, keys: readonly string[]): void {
  for (const key of keys) map.delete(key);
}

/** The ipcache entry of an address: the exact one, else that of the longest block. */
function lookupAddress(maps: CompiledMaps, text: string): IpcacheRow | undefined {
  const exact = maps.ipcache.get(text);
  if (exact !== undefined) return exact;
  const parsed = parseAddress(text);
  if (!parsed.ok) return undefined;
  for (const bits of prefixLengths(maps)) {
    if (bits > parsed.value.bytes.length * 8) continue;
    const row = maps.ipcache.get(formatCidr(maskAddress(parsed.value, bits)));
    if (row !== undefined) return row;
  }
  return undefined;
}

/** Of the blocks that there are, the longest first: to make the text of a block takes longer than to look through them. */
function prefixLengths(maps: CompiledMaps): number[] {
  const lengths = new Set<number>();
  for (const key of maps.ipcache.keys()) {
    const at = key.indexOf('/');
    if (at > 0) lengths.add(Number(key.slice(at + 1)));
  }
  return [...lengths].sort((a, b) => b - a);
}

/** Judges both ends. An end that is neither a pod of this node nor the node itself is not judged, and allowed. */
export function lookupConnection(
  maps: CompiledMaps,
  connection: Connection,
): { egress: CompiledVerdict; ingress: CompiledVerdict } {
  const source = lookupAddress(maps, connection.source);
  const destination = lookupAddress(maps, connection.destination);
  return {
    egress: judge(maps, 'egress', source, destination, connection),
    ingress: judge(maps, 'ingress', destination, source, connection),
  };
}

const notJudged: CompiledVerdict = { allowed: true, cookie: 0, stagedAllowed: true };
const notFound: CompiledVerdict = { allowed: false, cookie: 0, stagedAllowed: false };

function judge(
  maps: CompiledMaps,
  direction: Direction,
  subject: IpcacheRow | undefined,
  peer: IpcacheRow | undefined,
  connection: Connection,
): CompiledVerdict {
  const here = subject !== undefined && (subject.endpointId !== 0 || subject.ifindex !== 0);
  if (subject === undefined || (!here && (subject.flags & ipcacheFlags.thisNode) === 0)) return notJudged;
  const row = (peerClass: number): PolicyPeerRow | undefined =>
    maps.peers.get(policyPeerKey({ subject: subject.class, direction, peer: peerClass }));
  for (const candidate of [peer === undefined ? undefined : row(peer.class), row(0)]) {
    const entry = candidate && lookupPort(maps, candidate.ruleset, connection.protocol, connection.port);
    if (entry !== undefined) return { allowed: entry.allow, cookie: entry.cookie, stagedAllowed: entry.stagedAllow };
  }
  return notFound;
}

function lookupPort(maps: CompiledMaps, ruleset: number, protocol: number, port: number): PolicyPortRow | undefined {
  const wanted = { protocol, port, prefixBits: 24 };
  for (let prefixBits = 24; prefixBits >= 0; prefixBits = prefixBits === 8 ? 0 : prefixBits - 1) {
    const row = maps.ports.get(policyPortKey({ ruleset, ...widen(wanted, prefixBits) }));
    if (row !== undefined) return row;
    if (prefixBits === 0) break;
  }
  return undefined;
}
