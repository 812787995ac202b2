// The busiest groups of a stretch of time, and how they are shown.
import type { Flow } from '../../../../proto/gen/flow/flow_pb.js';
import { bytesText } from '../display-units.ts';
import { type Column, tableText } from '../output.ts';
import type { Grouping, Sorting } from './choices.ts';
import { type Group, groupOf } from './groups.ts';
import { createTrafficMeter, type Share, timeMs } from './traffic.ts';

/** A row. Rates are a second's. */
export interface TopRow extends Group {
  readonly bytesPerSecond: number;
  readonly packetsPerSecond: number;
  readonly connectionsPerSecond: number;
  readonly drops: number;
  /** The mean of connections that ended. */
  readonly rttUs?: number;
}

/** What has been going on lately. */
export interface TopWindow {
  /** Takes a flow. Times of nodes may be a little off: what counts is when it came. */
  add(flow: Flow, nowMs: number): void;
  rows(by: Grouping, nowMs: number): TopRow[];
}

interface Slot {
  readonly flow: Flow;
  readonly share: Share;
  readonly atMs: number;
}

const maxSlots = 500_000;

/** Keeps what flows added within `windowMs`; what happened before `sinceMs` only says what to count from. */
export function createTopWindow(windowMs: number, sinceMs: number): TopWindow {
  const meter = createTrafficMeter(sinceMs);
  let slots: Slot[] = [];
  return {
    add(flow, nowMs) {
      const share = meter.measure(flow);
      if (share === undefined || timeMs(flow) < sinceMs) return;
      slots.push({ flow, share, atMs: nowMs });
      if (slots.length > maxSlots) slots = slots.slice(maxSlots / 10);
    },
    rows(by, nowMs) {
      slots = slots.filter(({ atMs }) => nowMs - atMs < windowMs);
      const seconds = Math.max(1, Math.min(windowMs, nowMs - sinceMs) / 1000);
      const groups = Map.groupBy(slots, ({ flow }) => {
        const { source, destination } = groupOf(flow, by);
        return JSON.stringify([source, destination]);
      });
      return [...groups.values()].map((same) => {
        const sum = (of: (share: Share) => number) => same.reduce((all, { share }) => all + of(share), 0);
        const rtts = same.flatMap(({ share }) => share.rttUs ?? []);
        return {
          ...groupOf(same[0]!.flow, by),
          bytesPerSecond: sum((share) => share.bytes) / seconds,
          packetsPerSecond: sum((share) => share.packets) / seconds,
          connectionsPerSecond: sum((share) => share.connections) / seconds,
          drops: sum((share) => share.drops),
          ...(rtts.length > 0 && { rttUs: rtts.reduce((all, each) => all + each, 0) / rtts.length }),
        };
      });
    },
  };
}

const sortValue: Readonly<Record<Sorting, (row: TopRow) => number>> = {
  bytes: (row) => row.bytesPerSecond,
  packets: (row) => row.packetsPerSecond,
  connections: (row) => row.connectionsPerSecond,
  drops: (row) => row.drops,
  rtt: (row) => row.rttUs ?? -1,
};

/** The rows, the most first; those that are alike in the order of their names. */
export function sortRows(rows: readonly TopRow[], sort: Sorting): TopRow[] {
  const value = sortValue[sort];
  const name = (row: TopRow) => `${row.source ?? ''}\0${row.destination}`;
  return rows.toSorted((a, b) => value(b) - value(a) || (name(a) < name(b) ? -1 : 1));
}

/** The table, cut to `terminalColumns`; the column by which it is sorted is marked. */
export function topText(
  rows: readonly TopRow[],
  options: { readonly by: Grouping; readonly sort: Sorting; readonly terminalColumns?: number },
): string {
  const { by, sort, terminalColumns } = options;
  const title = (text: string, of: Sorting) => (sort === of ? `${text}▼` : text);
  const single = by === 'port' || by === 'node';
  const columns: Column<TopRow>[] = [
    ...(single ? [] : [{ title: 'SOURCE', value: (row: TopRow) => row.source, shrinkTo: 12 }]),
    { title: single ? by.toUpperCase() : 'DESTINATION', value: (row) => row.destination, shrinkTo: 12 },
    { title: title('BYTES/S', 'bytes'), value: (row) => bytesText(row.bytesPerSecond), alignRight: true },
    { title: title('PKTS/S', 'packets'), value: (row) => rateText(row.packetsPerSecond), alignRight: true },
    { title: title('CONN/S', 'connections'), value: (row) => rateText(row.connectionsPerSecond), alignRight: true },
    { title: title('DROPS', 'drops'), value: (row) => row.drops, alignRight: true },
    { title: title('RTT', 'rtt'), value: (row) => row.rttUs && rttText(row.rttUs), alignRight: true },
  ];
  return tableText(columns, rows, { terminalColumns });
}

function rateText(value: number): string {
  return value === 0 || value >= 10 ? String(Math.round(value)) : value.toFixed(1);
}

function rttText(us: number): string {
  return us < 1000 ? `${Math.round(us)} µs` : `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms`;
}
