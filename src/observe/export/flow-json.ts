// A flow as JSON of the contract, straight from its row: the same as protobuf's own JSON of the message, an order of
// magnitude faster. What the contract carries in `extensions` are plain fields of the flow here.
import {
  DropReason,
  FlowType,
  IPVersion,
  L7FlowType,
  TraceObservationPoint,
  TraceReason,
  TrafficDirection,
} from '../../../proto/gen/flow/flow_pb.js';
import { isWorld } from '../../core/identity.ts';
import { ClosedBy, EventType } from '../../kernel/datapath.gen.ts';
import { clusterName } from '../flows/filter-values.ts';
import { processValue } from '../flows/flow-extensions.ts';
import {
  endLabels,
  type FlowContext,
  flowEventType,
  flowSubType,
  flowUuid,
  observationPoint,
} from '../flows/flow-message.ts';
import { logsOf, policiesOf } from '../flows/flow-policies.ts';
import type { FlowDns, FlowEnd, FlowRow, FlowRules, FlowService } from '../flows/flow-row.ts';
import { endCauseOf, flowSummary, stagedDenials, verdictOf } from '../flows/flow-summary.ts';
import { tcpFlagBits } from '../flows/tcp-flags.ts';
import { verdictText } from './flow-words.ts';

/** An object that becomes JSON; undefined members are left out. */
export type JsonObject = { [name: string]: unknown };

const ends = new WeakMap<FlowEnd, JsonObject>();
const rulesKnown = new WeakMap<FlowRules, JsonObject[]>();
const flagsByBits = Array.from({ length: 256 }, (_, bits) =>
  Object.fromEntries(
    (['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const)
      .filter((name) => (bits & tcpFlagBits[name]) !== 0)
      .map((name) => [name, true]),
  ),
);
const protocolNames: Readonly<Record<number, string>> = { 6: 'TCP', 17: 'UDP', 1: 'ICMPv4', 58: 'ICMPv6', 132: 'SCTP' };

/** The flow of the contract, with the extensions' members, `source_process` and `destination_process` in it. */
export function flowJson(row: FlowRow, context: FlowContext): JsonObject {
  const dropped = row.type === EventType.EVENT_DROP;
  const traced = !dropped && row.dns === undefined;
  const denied = (rules: FlowRules | undefined) => rules !== undefined && rules.verdict !== 'allow';
  return {
    time: timeText(row.seconds, row.nanos),
    uuid: flowUuid(context.run, row.seq),
    emitter: { name: 'Weir', version: context.version },
    verdict: verdictText(verdictOf(row)),
    drop_reason: dropped && row.reason > 0 ? row.reason : undefined,
    IP: {
      source: row.sourceAddress,
      destination: row.destination.address,
      ipVersion: IPVersion[row.ipv6 ? IPVersion.IPv6 : IPVersion.IPv4],
    },
    l4: transportOf(row),
    source: endOf(row.source),
    destination: endOf(row.destination),
    Type: FlowType[row.dns === undefined ? FlowType.L3_L4 : FlowType.L7],
    node_name: context.nodeName || undefined,
    source_names: filled(row.sourceNames),
    destination_names: filled(row.destinationNames),
    l7: row.dns && dnsOf(row.dns),
    reply: row.reply || undefined,
    event_type: { type: flowEventType(row), sub_type: flowSubType(row) || undefined },
    source_service: row.sourceService && serviceOf(row.sourceService),
    destination_service: row.destinationService && serviceOf(row.destinationService),
    traffic_direction: row.direction === 0 ? undefined : TrafficDirection[row.direction],
    trace_observation_point: traced ? TraceObservationPoint[observationPoint(row)] : undefined,
    trace_reason: traced
      ? TraceReason[row.type === EventType.EVENT_NEW ? TraceReason.NEW : TraceReason.ESTABLISHED]
      : undefined,
    drop_reason_desc: dropped && row.reason > 0 ? (DropReason[row.reason] ?? row.reason) : undefined,
    is_reply: !dropped || row.reply ? row.reply : undefined,
    interface:
      row.ifindex === 0 ? undefined : { index: row.ifindex, name: context.deviceName?.(row.ifindex) || undefined },
    egress_allowed_by: denied(row.egressRules) ? undefined : policies(row.egressRules),
    ingress_allowed_by: denied(row.ingressRules) ? undefined : policies(row.ingressRules),
    egress_denied_by: denied(row.egressRules) ? policies(row.egressRules) : undefined,
    ingress_denied_by: denied(row.ingressRules) ? policies(row.ingressRules) : undefined,
    policy_log: filled(logsOf(row.egressRules, row.ingressRules)),
    Summary: flowSummary(row),
    ...factsOf(row),
    source_process: row.sourceProcess && processValue(row.sourceProcess),
    destination_process: row.destinationProcess && processValue(row.destinationProcess),
  };
}

/** What a report knows of its connection, and what of a flow was not told. */
function factsOf(row: FlowRow): JsonObject | undefined {
  const isEnd = row.type === EventType.EVENT_END;
  const isReport = isEnd || row.type === EventType.EVENT_ACTIVE;
  const staged = stagedDenials(row.flags);
  if (!isReport && staged.length === 0 && row.suppressed === 0) return undefined;
  const { tcp } = row;
  return {
    ...(isReport && {
      report: isEnd ? 'end' : 'active',
      end_cause: isEnd ? endCauseOf(row) : undefined,
      closed_by:
        row.closedBy === ClosedBy.CLOSED_BY_NOBODY
          ? undefined
          : row.closedBy === ClosedBy.CLOSED_BY_ORIGINATOR
            ? 'client'
            : 'server',
      packets_sent: row.packets[0],
      bytes_sent: row.bytes[0],
      packets_received: row.packets[1],
      bytes_received: row.bytes[1],
      duration_ms: Math.round(row.durationNs / 1e6),
      ...(tcp && {
        handshake_us: tcp.handshakeUs || undefined,
        rtt_us: tcp.rttUs,
        min_rtt_us: tcp.minRttUs,
        retransmits: tcp.retransmits,
      }),
    }),
    staged_denied: filled(staged),
    reports_held_back: row.suppressed || undefined,
  };
}

function filled<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

function endOf(end: FlowEnd): JsonObject {
  const known = ends.get(end);
  if (known !== undefined) return known;
  const made = {
    ID: end.endpointId || undefined,
    identity: end.identity || undefined,
    cluster_name: isWorld(end.identity) ? undefined : clusterName,
    namespace: end.namespace || undefined,
    labels: filled(endLabels(end)),
    pod_name: end.pod || undefined,
    workloads: end.workloadName === '' ? undefined : [{ name: end.workloadName, kind: end.workloadKind || undefined }],
  };
  ends.set(end, made);
  return made;
}

function policies(rules: FlowRules | undefined): JsonObject[] | undefined {
  if (rules === undefined) return undefined;
  let known = rulesKnown.get(rules);
  if (known === undefined) {
    known = policiesOf(rules).map(({ name, namespace, labels, revision, kind }) => ({
      name,
      namespace: namespace || undefined,
      labels,
      revision: revision === 0 ? undefined : String(revision),
      kind,
    }));
    rulesKnown.set(rules, known);
  }
  return known.length === 0 ? undefined : known;
}

function serviceOf({ name, namespace }: FlowService): JsonObject {
  return { name: name || undefined, namespace: namespace || undefined };
}

function transportOf(row: FlowRow): JsonObject | undefined {
  const name = protocolNames[row.protocol];
  if (name === undefined) return undefined;
  if (row.protocol === 1 || row.protocol === 58)
    return { [name]: { type: row.icmpType || undefined, code: row.icmpCode || undefined } };
  return {
    [name]: {
      source_port: row.sourcePort || undefined,
      destination_port: row.destinationPort || undefined,
      flags: row.protocol === 6 ? flagsByBits[row.tcpFlags] : undefined,
    },
  };
}

function dnsOf(dns: FlowDns): JsonObject {
  return {
    type: L7FlowType[dns.response ? L7FlowType.RESPONSE : L7FlowType.REQUEST],
    latency_ns: dns.latencyNs === 0 ? undefined : String(dns.latencyNs),
    dns: {
      query: dns.query || undefined,
      ips: filled(dns.addresses),
      ttl: dns.ttl || undefined,
      cnames: filled(dns.cnames),
      observation_source: 'datapath',
      rcode: dns.rcode || undefined,
      qtypes: filled(dns.types),
      rrtypes: filled(dns.recordTypes),
    },
  };
}

let second = -1;
let secondText = '';

/** RFC 3339 with as many digits as are needed: none, 3, 6 or 9. */
export function timeText(seconds: number, nanos: number): string {
  if (seconds !== second) {
    secondText = new Date(seconds * 1000).toISOString().slice(0, 19);
    second = seconds;
  }
  if (nanos === 0) return `${secondText}Z`;
  const digits = String(nanos).padStart(9, '0');
  if (digits.endsWith('000000')) return `${secondText}.${digits.slice(0, 3)}Z`;
  return digits.endsWith('000') ? `${secondText}.${digits.slice(0, 6)}Z` : `${secondText}.${digits}Z`;
}
