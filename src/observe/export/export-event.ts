// What is exported, before it has a format.
import { LostEventSource } from '../../../proto/gen/flow/flow_pb.js';
import { processValue } from '../flows/flow-extensions.ts';
import { type FlowContext, flowUuid } from '../flows/flow-message.ts';
import type { FlowRow } from '../flows/flow-row.ts';
import { verdictOf } from '../flows/flow-summary.ts';
import type { ProcessEvent } from '../processes/process-table.ts';
import { flowJson, type JsonObject, timeText } from './flow-json.ts';
import { verdictText } from './flow-words.ts';

/** Events that were lost on their way to an exporter. */
export interface ExportLoss {
  /**
   * Of the contract's LostEventSource, `PROCESS_RING_BUFFER`, or `EXPORT_QUEUE`: the exporter's queue had no room, or could not be
   * written.
   */
  readonly source: string;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly id: string;
}

/** Events of processes for which the kernel's ring of them had no room: told to who wants such events. */
export const processRing = 'PROCESS_RING_BUFFER';

/** Flows of a span of time that have the same values in some fields. */
export interface FlowAggregate {
  readonly fields: JsonObject;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Of the connections that ended. */
  readonly bytes: readonly [number, number];
  readonly packets: readonly [number, number];
  readonly id: string;
}

/** An event of any kind. */
export type ExportEvent =
  | { readonly kind: 'flow'; readonly row: FlowRow }
  | { readonly kind: 'aggregate'; readonly aggregate: FlowAggregate }
  | { readonly kind: 'process'; readonly event: ProcessEvent }
  | { readonly kind: 'lost'; readonly loss: ExportLoss };

/** The same whenever the same event is exported again. */
export function eventId(event: ExportEvent, context: FlowContext): string {
  switch (event.kind) {
    case 'flow':
      return flowUuid(context.run, event.row.seq);
    case 'aggregate':
      return event.aggregate.id;
    case 'process':
      return `${event.event.process.execId}-${event.event.kind}`;
    case 'lost':
      return event.loss.id;
  }
}

/** When it happened, in milliseconds since the epoch. */
export function eventTimeMs(event: ExportEvent): number {
  switch (event.kind) {
    case 'flow':
      return event.row.seconds * 1000 + event.row.nanos / 1e6;
    case 'aggregate':
      return event.aggregate.lastMs;
    case 'process':
      return event.event.timeMs;
    case 'lost':
      return event.loss.lastMs;
  }
}

/** Whether it is more than information: a loss, or a flow that was not forwarded. */
export function isWarning(event: ExportEvent): boolean {
  return event.kind === 'lost' || (event.kind === 'flow' && verdictText(verdictOf(event.row)) !== 'FORWARDED');
}

/** The contract's name of a source of losses. */
export function lossSourceName(source: number): string {
  return LostEventSource[source] ?? String(source);
}

/** As the contract's JSON has it; what the contract has no message for is named in its manner. */
export function contractJson(
  event: ExportEvent,
  context: FlowContext,
  mask?: (flow: JsonObject) => JsonObject,
): JsonObject {
  const node_name = context.nodeName;
  switch (event.kind) {
    case 'flow': {
      const flow = flowJson(event.row, context);
      return { flow: mask === undefined ? flow : mask(flow), node_name, time: flow.time };
    }
    case 'aggregate': {
      const { fields, count, firstMs, lastMs, bytes, packets } = event.aggregate;
      return {
        flow_aggregate: {
          ...fields,
          count,
          first: msText(firstMs),
          last: msText(lastMs),
          bytes_sent: bytes[0],
          bytes_received: bytes[1],
          packets_sent: packets[0],
          packets_received: packets[1],
        },
        node_name,
        time: msText(lastMs),
      };
    }
    case 'process': {
      const { kind, process, timeMs } = event.event;
      const { container, exit } = process;
      const value = {
        process: {
          ...processValue(process),
          namespace: container?.namespace || undefined,
          pod_name: container?.pod || undefined,
        },
        ...(kind === 'exit' && { code: exit?.code, signal: exit?.signal || undefined }),
      };
      return { [kind === 'exec' ? 'process_exec' : 'process_exit']: value, node_name, time: msText(timeMs) };
    }
    case 'lost': {
      const { source, count, firstMs, lastMs } = event.loss;
      const lost = { source, num_events_lost: String(count), first: msText(firstMs), last: msText(lastMs) };
      return { lost_events: lost, node_name, time: msText(lastMs) };
    }
  }
}

/** RFC 3339. */
export function msText(ms: number): string {
  const whole = Math.floor(ms);
  const seconds = Math.floor(whole / 1000);
  return timeText(seconds, (whole - seconds * 1000) * 1e6);
}
