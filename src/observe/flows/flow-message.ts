// Builds the message of a flow from its row.
import { create, fromJson, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf';
import { type Any, anyPack, StructSchema, timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type Endpoint,
  EndpointSchema,
  type Flow,
  FlowSchema,
  FlowType,
  IPVersion,
  type Layer4Schema,
  type LostEvent,
  LostEventSchema,
  TraceObservationPoint,
  TraceReason,
  type TrafficDirection,
  Verdict,
} from '../../../proto/gen/flow/flow_pb.js';
import { isWorld, reservedIdentities } from '../../core/identity.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import { policiesOf } from './flow-policies.ts';
import { FlowDirection, type FlowEnd, type FlowRow } from './flow-row.ts';
import { endCauseText, flowSummary, stagedDenials } from './flow-summary.ts';
import type { Loss } from './loss-log.ts';
import { tcpFlagBits } from './tcp-flags.ts';

/** What is the same for all flows of an agent. */
export interface FlowContext {
  readonly nodeName: string;
  readonly version: string;
  /** 16 hexadecimal digits, others for each start of an agent: with the row's number they are the flow's uuid. */
  readonly run: string;
}

/** Event types of the contract. */
export const eventTypes = { drop: 1, trace: 4 } as const;

const clusterName = 'default';
const endpoints = new WeakMap<FlowEnd, Endpoint>();

/** The message of a flow. */
export function flowMessage(row: FlowRow, context: FlowContext): Flow {
  const dropped = row.type === EventType.EVENT_DROP;
  const point = dropped ? TraceObservationPoint.UNKNOWN_POINT : observationPoint(row);
  const { egressRules, ingressRules } = row;
  return create(FlowSchema, {
    time: { seconds: BigInt(row.seconds), nanos: row.nanos },
    uuid: flowUuid(context.run, row.seq),
    emitter: { name: 'Weir', version: context.version },
    verdict: dropped ? Verdict.DROPPED : Verdict.FORWARDED,
    dropReason: dropped ? row.reason : 0,
    dropReasonDesc: dropped ? row.reason : 0,
    IP: {
      source: row.sourceAddress,
      destination: row.destination.address,
      ipVersion: row.ipv6 ? IPVersion.IPv6 : IPVersion.IPv4,
    },
    l4: layer4(row),
    source: endpointMessage(row.source),
    destination: endpointMessage(row.destination),
    Type: FlowType.L3_L4,
    nodeName: context.nodeName,
    reply: row.reply,
    isReply: dropped && !row.reply ? undefined : row.reply,
    eventType: { type: dropped ? eventTypes.drop : eventTypes.trace, subType: flowSubType(row) },
    trafficDirection: row.direction as TrafficDirection,
    traceObservationPoint: point,
    traceReason: dropped
      ? TraceReason.TRACE_REASON_UNKNOWN
      : row.type === EventType.EVENT_NEW
        ? TraceReason.NEW
        : TraceReason.ESTABLISHED,
    egressAllowedBy: egressRules?.verdict === 'allow' ? policiesOf(egressRules) : [],
    ingressAllowedBy: ingressRules?.verdict === 'allow' ? policiesOf(ingressRules) : [],
    egressDeniedBy: egressRules !== undefined && egressRules.verdict !== 'allow' ? policiesOf(egressRules) : [],
    ingressDeniedBy: ingressRules !== undefined && ingressRules.verdict !== 'allow' ? policiesOf(ingressRules) : [],
    Summary: flowSummary(row),
    extensions: extensionsOf(row),
  });
}

/** The flow's uuid (version 8): the run of the agent and the number of the flow. */
export function flowUuid(run: string, seq: number): string {
  const number = seq.toString(16).padStart(15, '0');
  return `${run.slice(0, 8)}-${run.slice(8, 12)}-8${run.slice(12, 15)}-8${number.slice(0, 3)}-${number.slice(3)}`;
}

/** Of a drop its reason, of a trace its observation point as the datapath numbers it: to-endpoint is 0. */
export function flowSubType(row: FlowRow): number {
  if (row.type === EventType.EVENT_DROP) return row.reason;
  const point = observationPoint(row);
  return point === TraceObservationPoint.TO_ENDPOINT ? 0 : point;
}

function observationPoint(row: FlowRow): TraceObservationPoint {
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

function endpointMessage(end: FlowEnd): Endpoint {
  const known = endpoints.get(end);
  if (known !== undefined) return known;
  const message = create(EndpointSchema, {
    ID: end.endpointId,
    identity: end.identity,
    clusterName: isWorld(end.identity) ? '' : clusterName,
    namespace: end.namespace,
    labels: [...endLabels(end)],
    podName: end.pod,
    workloads: end.workloadName === '' ? [] : [{ name: end.workloadName, kind: end.workloadKind }],
  });
  endpoints.set(end, message);
  return message;
}

function layer4(row: FlowRow): MessageInitShape<typeof Layer4Schema> | undefined {
  const ports = { sourcePort: row.sourcePort, destinationPort: row.destinationPort };
  switch (row.protocol) {
    case 6:
      return { protocol: { case: 'TCP', value: { ...ports, flags: tcpFlagsMessage(row.tcpFlags) } } };
    case 17:
      return { protocol: { case: 'UDP', value: ports } };
    case 132:
      return { protocol: { case: 'SCTP', value: ports } };
    case 1:
      return { protocol: { case: 'ICMPv4', value: { type: row.icmpType, code: row.icmpCode } } };
    case 58:
      return { protocol: { case: 'ICMPv6', value: { type: row.icmpType, code: row.icmpCode } } };
    default:
      return undefined;
  }
}

function tcpFlagsMessage(flags: number) {
  const set = (name: keyof typeof tcpFlagBits) => (flags & tcpFlagBits[name]) !== 0;
  return {
    FIN: set('FIN'),
    SYN: set('SYN'),
    RST: set('RST'),
    PSH: set('PSH'),
    ACK: set('ACK'),
    URG: set('URG'),
    ECE: set('ECE'),
    CWR: set('CWR'),
  };
}

/** What the contract has no field for, as a Struct: any client can read it, and print it. */
function extensionsOf(row: FlowRow): Any | undefined {
  const values: JsonObject = {};
  if (row.type === EventType.EVENT_ACTIVE || row.type === EventType.EVENT_END) {
    values.report = row.type === EventType.EVENT_END ? 'end' : 'active';
    if (row.type === EventType.EVENT_END) values.end_cause = endCauseText[row.reason] ?? 'unknown';
    values.packets_sent = row.packets[0];
    values.bytes_sent = row.bytes[0];
    values.packets_received = row.packets[1];
    values.bytes_received = row.bytes[1];
    values.duration_ms = Math.round(row.durationNs / 1e6);
  }
  const staged = stagedDenials(row.flags);
  if (staged.length > 0) values.staged_denied = staged;
  if (row.suppressed > 0) values.reports_held_back = row.suppressed;
  return Object.keys(values).length === 0 ? undefined : anyPack(StructSchema, fromJson(StructSchema, values));
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
