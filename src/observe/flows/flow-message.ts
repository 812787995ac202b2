// What the fields of the contract say of a row.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type LostEvent, LostEventSchema, TraceObservationPoint } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld, reservedIdentities } from '../../core/identity.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import { FlowDirection, type FlowEnd, type FlowRow } from './flow-row.ts';
import type { Loss } from './loss-log.ts';

/** What is the same for all flows of an agent. */
export interface FlowContext {
  readonly nodeName: string;
  readonly version: string;
  /** 16 hexadecimal digits, others for each start of an agent: with the row's number they are the flow's uuid. */
  readonly run: string;
  /** Of the node, as `k8s:key=value`; another list when they have changed. */
  readonly nodeLabels?: () => readonly string[];
  /** The name of a device of this node; empty when it is gone. */
  readonly deviceName?: (ifindex: number) => string;
}

/** Event types of the contract. */
const eventTypes = { drop: 1, trace: 4, accessLog: 129 } as const;

/** The contract's event type of a row. */
export function flowEventType(row: FlowRow): number {
  if (row.type === EventType.EVENT_DROP) return eventTypes.drop;
  return row.type === EventType.EVENT_DNS ? eventTypes.accessLog : eventTypes.trace;
}

/** The flow's uuid (version 8): the run of the agent and the number of the flow. */
export function flowUuid(run: string, seq: number): string {
  const number = seq.toString(16).padStart(15, '0');
  return `${run.slice(0, 8)}-${run.slice(8, 12)}-8${run.slice(12, 15)}-8${number.slice(0, 3)}-${number.slice(3)}`;
}

/** The same as ASCII; the answer is written over by the next call. */
export function createUuidBytes(run: string): (seq: number) => Uint8Array {
  const bytes = new TextEncoder().encode(flowUuid(run, 0));
  return (seq) => {
    let rest = seq;
    for (const place of numberPlaces) {
      const digit = rest % 16;
      bytes[place] = hexDigits[digit]!;
      rest = (rest - digit) / 16;
    }
    return bytes;
  };
}

const hexDigits = new TextEncoder().encode('0123456789abcdef');
/** Where the number's digits stand, the last first. */
const numberPlaces = [35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 22, 21, 20] as const;

/** Of a drop its reason, of a trace its observation point as the datapath numbers it: to-endpoint is 0. */
export function flowSubType(row: FlowRow): number {
  if (row.type === EventType.EVENT_DROP) return row.reason;
  if (row.type === EventType.EVENT_DNS) return 0;
  const point = observationPoint(row);
  return point === TraceObservationPoint.TO_ENDPOINT ? 0 : point;
}

/** Where the datapath saw what was not dropped. */
export function observationPoint(row: FlowRow): TraceObservationPoint {
  if (row.direction === FlowDirection.ingress) return TraceObservationPoint.TO_ENDPOINT;
  if (row.destination.endpointId > 0) return TraceObservationPoint.FROM_ENDPOINT;
  return row.destination.identity === reservedIdentities.host
    ? TraceObservationPoint.TO_HOST
    : TraceObservationPoint.TO_NETWORK;
}

/** The labels an end is shown with; what is outside of the cluster is also called by its family-less name. */
export function endLabels(end: FlowEnd): readonly string[] {
  return isWorld(end.identity) && end.identity !== reservedIdentities.world
    ? [...end.labels, 'reserved:world']
    : end.labels;
}

/** The message of a loss. */
export function lostMessage(loss: Loss): LostEvent {
  return create(LostEventSchema, {
    source: loss.source,
    numEventsLost: BigInt(loss.count),
    first: timestampFromMs(Math.floor(loss.firstMs)),
    last: timestampFromMs(Math.floor(loss.lastMs)),
  });
}
