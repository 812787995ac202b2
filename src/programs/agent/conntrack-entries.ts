// The connection tables as people read them: originator first, names instead of numbers.
import { addressText } from '../../connect/datapath/address-keys.ts';
import type { Datapath } from '../../connect/datapath/load-datapath.ts';
import {
  type CtEntry,
  CtFlags,
  ctStateName,
  Direction,
  datapathMaps,
  dropReasonName,
} from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';

/** A tracked connection. */
export interface ConnectionView {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly protocol: number;
  readonly state: string;
  readonly verdict: string;
  readonly sourceIdentity: number;
  readonly destinationIdentity: number;
  readonly packets: readonly [number, number];
  readonly bytes: readonly [number, number];
  readonly idleSeconds: number;
  readonly lifetimeSeconds: number;
  /** Directions in which policies for nodes deny it, and the host firewall's mode let it through. */
  readonly audited: readonly ('egress' | 'ingress')[];
  /** What stands for the rules behind the verdict: egress of the source, ingress of the destination. */
  readonly cookies: readonly [number, number];
}

/** Which connections are asked for; what is left out does not matter. */
export interface ConnectionFilter {
  /** Of either end. */
  readonly ip?: string;
  readonly port?: number;
  readonly protocol?: number;
  readonly state?: string;
  /** `forwarded`, `dropped`, or a drop reason. */
  readonly verdict?: string;
}

const tickMs = 2 ** 20 / 1e6;

/** Whether a connection is one of those asked for. */
export function connectionMatches(row: ConnectionView, filter: ConnectionFilter): boolean {
  const { ip, port, protocol, state, verdict } = filter;
  return (
    (ip === undefined || row.source === ip || row.destination === ip) &&
    (port === undefined || row.sourcePort === port || row.destinationPort === port) &&
    (protocol === undefined || row.protocol === protocol) &&
    (state === undefined || row.state === state) &&
    (verdict === undefined ||
      row.verdict.toLowerCase() === verdict.toLowerCase() ||
      (verdict === 'dropped' && row.verdict !== 'forwarded'))
  );
}

/** Reads both tables, the most recently used first. `limit` bounds the answer. */
export function conntrackEntries(datapath: Datapath, options: ConnectionFilter & { limit: number }): ConnectionView[] {
  const now = Number(process.hrtime.bigint() >> 20n) >>> 0;
  const rows: ConnectionView[] = [];
  const v4 = typedMap(datapath.map('ct4'), datapathMaps.ct4);
  const v6 = typedMap(datapath.map('ct6'), datapathMaps.ct6);
  const four = (address: number) =>
    [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
  for (const { key, value } of v4.entries())
    rows.push(view(value, four(key.loAddr), key.loPort, four(key.hiAddr), key.hiPort, key.protocol, now));
  for (const { key, value } of v6.entries())
    rows.push(view(value, addressText(key.loAddr), key.loPort, addressText(key.hiAddr), key.hiPort, key.protocol, now));
  return rows
    .filter((row) => connectionMatches(row, options))
    .sort((a, b) => a.idleSeconds - b.idleSeconds)
    .slice(0, options.limit);
}

function view(
  entry: CtEntry,
  lo: string,
  loPort: number,
  hi: string,
  hiPort: number,
  protocol: number,
  now: number,
): ConnectionView {
  const swapped = (entry.flags & CtFlags.CT_ORIGINATOR_HI) !== 0;
  return {
    source: swapped ? hi : lo,
    sourcePort: swapped ? hiPort : loPort,
    destination: swapped ? lo : hi,
    destinationPort: swapped ? loPort : hiPort,
    protocol,
    state: (ctStateName[entry.state] ?? String(entry.state)).replace('CT_', '').toLowerCase(),
    verdict: entry.verdict === 0 ? 'forwarded' : (dropReasonName[entry.verdict] ?? String(entry.verdict)),
    sourceIdentity: entry.identity[0]!,
    destinationIdentity: entry.identity[1]!,
    packets: [Number(entry.packets[0]), Number(entry.packets[1])],
    bytes: [Number(entry.bytes[0]), Number(entry.bytes[1])],
    idleSeconds: Math.round(((now - entry.lastSeen) >>> 0) * tickMs) / 1000,
    lifetimeSeconds: Math.round(entry.lifetime * tickMs) / 1000,
    audited: [
      ...((entry.audited & Direction.DIRECTION_EGRESS) !== 0 ? (['egress'] as const) : []),
      ...((entry.audited & Direction.DIRECTION_INGRESS) !== 0 ? (['ingress'] as const) : []),
    ],
    cookies: [entry.cookie[0]!, entry.cookie[1]!],
  };
}
