// `weir observe --stats`: how many flows there were, by verdict, pod, port and drop reason.
import { type Flow, Verdict } from '../../../../proto/gen/flow/flow_pb.js';
import { dropReasons } from '../../../kernel/datapath.gen.ts';
import { type Column, tableText } from '../output.ts';
import { endName, portText } from '../top/groups.ts';

/** A number of flows of a kind. */
export interface FlowCount {
  readonly name: string;
  readonly flows: number;
  readonly dropped: number;
}

/** The counts, the most first. */
export interface FlowStats {
  readonly flows: number;
  readonly lostEvents: number;
  readonly verdicts: readonly FlowCount[];
  readonly pods: readonly FlowCount[];
  readonly ports: readonly FlowCount[];
  readonly dropReasons: readonly FlowCount[];
}

/** Counts flows. */
export interface FlowCounter {
  add(flow: Flow): void;
  lose(events: number): void;
  stats(): FlowStats;
}

/** Names of a kind that are counted; the rest is counted together. */
const maxNames = 10_000;
const others = '(others)';

/** Begins to count. */
export function createFlowCounter(): FlowCounter {
  const counts = { verdicts: newCounts(), pods: newCounts(), ports: newCounts(), dropReasons: newCounts() };
  let flows = 0;
  let lostEvents = 0;
  return {
    add(flow) {
      flows++;
      const dropped = flow.verdict === Verdict.DROPPED ? 1 : 0;
      const add = (to: Counts, wanted: string) => {
        const name = to.has(wanted) || to.size < maxNames ? wanted : others;
        const before = to.get(name) ?? { flows: 0, dropped: 0 };
        to.set(name, { flows: before.flows + 1, dropped: before.dropped + dropped });
      };
      add(counts.verdicts, Verdict[flow.verdict] ?? String(flow.verdict));
      add(counts.ports, portText(flow));
      // A pod that talks to itself is one.
      const ends = (['source', 'destination'] as const).filter((side) => flow[side]?.podName);
      for (const name of new Set(ends.map((side) => endName(flow, side, 'pod')))) add(counts.pods, name);
      if (dropped > 0)
        add(
          counts.dropReasons,
          dropReasons.find((each) => each.number === flow.dropReasonDesc)?.name ?? `reason-${flow.dropReasonDesc}`,
        );
    },
    lose(events) {
      lostEvents += events;
    },
    stats: () => ({
      flows,
      lostEvents,
      verdicts: sorted(counts.verdicts),
      pods: sorted(counts.pods),
      ports: sorted(counts.ports),
      dropReasons: sorted(counts.dropReasons),
    }),
  };
}

type Counts = Map<string, { flows: number; dropped: number }>;
const newCounts = (): Counts => new Map();

function sorted(counts: Counts): FlowCount[] {
  return [...counts]
    .map(([name, count]) => ({ name, ...count }))
    .sort((a, b) => b.flows - a.flows || (a.name < b.name ? -1 : 1));
}

/** The counts as text: a table for each kind that has any, with at most `most` rows. */
export function statsText(
  stats: FlowStats,
  options: { readonly most: number; readonly terminalColumns?: number },
): string {
  const { most, terminalColumns } = options;
  const lost = stats.lostEvents > 0 ? `, ${stats.lostEvents} events lost` : '';
  const parts = [`${stats.flows} flows${lost}\n`];
  const kinds = [
    ['VERDICT', stats.verdicts],
    ['DROP REASON', stats.dropReasons],
    ['POD', stats.pods],
    ['PORT', stats.ports],
  ] as const;
  for (const [title, rows] of kinds) {
    if (rows.length === 0) continue;
    const withDrops = title === 'POD' || title === 'PORT';
    const columns: Column<FlowCount>[] = [
      { title: 'FLOWS', value: (row) => row.flows, alignRight: true },
      ...(withDrops ? [{ title: 'DROPPED', value: (row: FlowCount) => row.dropped, alignRight: true }] : []),
      { title, value: (row) => row.name, shrinkTo: 12 },
    ];
    parts.push(tableText(columns, rows.slice(0, most), { terminalColumns }));
    if (rows.length > most) parts.push(`and ${rows.length - most} more\n`);
  }
  return parts.join('');
}
