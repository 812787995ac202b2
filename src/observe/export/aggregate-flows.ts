// Counts flows that are alike, and gives one event for each kind after a while: less to send and to keep.
import { EventType } from '../../kernel/datapath.gen.ts';
import type { FlowContext } from '../flows/flow-message.ts';
import { flowUuid } from '../flows/flow-message.ts';
import type { FlowRow } from '../flows/flow-row.ts';
import type { FlowAggregate } from './export-event.ts';
import { flowJson, type JsonObject } from './flow-json.ts';

/** Flows that are alike, since the last `take`. */
export interface FlowAggregator {
  /** False when there is no room for another kind of flows: take first. */
  add(row: FlowRow): boolean;
  take(): FlowAggregate[];
}

type Mutable = { -readonly [K in keyof FlowAggregate]: FlowAggregate[K] } & {
  bytes: [number, number];
  packets: [number, number];
};

/** Aggregates by the values at `paths`, for at most `maxGroups` different ones. */
export function createFlowAggregator(
  paths: readonly string[],
  maxGroups: number,
  context: FlowContext,
  mask: (flow: JsonObject) => JsonObject,
): FlowAggregator {
  let groups = new Map<string, Mutable>();
  return {
    add(row) {
      const fields = mask(flowJson(row, context));
      const key = JSON.stringify(paths.map((path) => valueAt(fields, path.split('.')) ?? null));
      const timeMs = row.seconds * 1000 + row.nanos / 1e6;
      let group = groups.get(key);
      if (group === undefined) {
        if (groups.size >= maxGroups) return false;
        // The first flow's id is nobody else's: a flow is in one group, and in one span of time.
        const id = `${flowUuid(context.run, row.seq)}-aggregate`;
        group = { fields, count: 0, firstMs: timeMs, lastMs: timeMs, bytes: [0, 0], packets: [0, 0], id };
        groups.set(key, group);
      }
      group.count++;
      group.firstMs = Math.min(group.firstMs, timeMs);
      group.lastMs = Math.max(group.lastMs, timeMs);
      // Reports count from the connection's start: only the last one has all, and each once.
      if (row.type === EventType.EVENT_END)
        for (const i of [0, 1] as const) {
          group.bytes[i] += row.bytes[i];
          group.packets[i] += row.packets[i];
        }
      return true;
    },
    take() {
      const taken = [...groups.values()];
      groups = new Map();
      return taken;
    },
  };
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  if (path.length === 0) return value;
  if (Array.isArray(value)) return value.map((each) => valueAt(each, path));
  if (typeof value !== 'object' || value === null) return undefined;
  return valueAt((value as JsonObject)[path[0]!], path.slice(1));
}
