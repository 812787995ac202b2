// A flow's row as bytes of the contract: each reader of each flow costs this. What does not change between flows (ends,
// policies, the node) is encoded once and copied.
import { FlowType, IPVersion, L7FlowType, TraceReason } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld } from '../../core/identity.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import type { FieldMask } from './field-mask.ts';
import { clusterName } from './filter-values.ts';
import { writeExtensions } from './flow-extensions.ts';
import {
  createUuidBytes,
  endLabels,
  type FlowContext,
  flowEventType,
  flowSubType,
  observationPoint,
} from './flow-message.ts';
import { logsOf, policiesOf } from './flow-policies.ts';
import type { FlowDns, FlowEnd, FlowRow, FlowRules, FlowService } from './flow-row.ts';
import { flowSummary, verdictOf } from './flow-summary.ts';
import { tcpFlagFields } from './tcp-flags.ts';
import { createWireWriter } from './wire-writer.ts';

/** Encodes flows of one agent. */
export interface FlowEncoder {
  /** A Flow. */
  flow(row: FlowRow): Uint8Array;
  /** A GetFlowsResponse with the flow. */
  response(row: FlowRow): Uint8Array;
  /** The same, written to the encoder's writer. */
  writeResponse(row: FlowRow): void;
}

/** Field numbers of a Flow's policies, by what their direction and verdict are. */
const policyFields = {
  egress: { allow: 21_001, deny: 21_004 },
  ingress: { allow: 21_002, deny: 21_005 },
} as const;
const policyLogField = 21_006;

/** An end as a flow has it. */
interface EncodedEnd {
  readonly endpoint: Uint8Array;
  readonly address: Uint8Array;
}
const ends = new WeakMap<FlowEnd, EncodedEnd>();
const policies = new WeakMap<FlowRules, readonly Uint8Array[]>();

/** Makes an encoder. What `mask` leaves out is not made. */
export function createFlowEncoder(context: FlowContext, mask?: FieldMask, out = createWireWriter()): FlowEncoder {
  const part = createWireWriter();
  const uuid = createUuidBytes(context.run);
  part.text(1000, context.nodeName);
  const responseNode = part.take();
  part.text(11, context.nodeName);
  const flowNode = part.take();
  part.text(1, 'Weir');
  part.text(2, context.version);
  const emitter = part.take();
  const tcpFlags = Array.from({ length: 256 }, (_, flags) => {
    for (const [field, bit] of tcpFlagFields) part.uint(field, (flags & bit) === 0 ? 0 : 1);
    return part.take();
  });

  function encodeEnd(end: FlowEnd): EncodedEnd {
    const known = ends.get(end);
    if (known !== undefined) return known;
    part.uint(1, end.endpointId);
    part.uint(2, end.identity);
    part.text(3, end.namespace);
    for (const label of endLabels(end)) part.text(4, label);
    part.text(5, end.pod);
    if (end.workloadName !== '') {
      const workload = part.open(6);
      part.text(1, end.workloadName);
      part.text(2, end.workloadKind);
      part.close(workload);
    }
    if (!isWorld(end.identity)) part.text(7, clusterName);
    const encoded = { endpoint: part.take(), address: new TextEncoder().encode(end.address) };
    ends.set(end, encoded);
    return encoded;
  }

  function writePolicies(
    direction: keyof typeof policyFields,
    said: 'allow' | 'deny',
    rules: FlowRules | undefined,
  ): void {
    if (rules === undefined || (rules.verdict === 'allow') !== (said === 'allow')) return;
    let encoded = policies.get(rules);
    if (encoded === undefined) {
      encoded = policiesOf(rules).map((policy) => {
        part.text(1, policy.name);
        part.text(2, policy.namespace);
        for (const label of policy.labels) part.text(3, label);
        part.uint(4, policy.revision);
        part.text(5, policy.kind);
        return part.take();
      });
      policies.set(rules, encoded);
    }
    for (const policy of encoded) out.bytes(policyFields[direction][said], policy);
  }

  function writeTime(field: number, row: FlowRow): void {
    const time = out.open(field);
    out.uint(1, row.seconds);
    out.uint(2, row.nanos);
    out.close(time);
  }

  function writeService(field: number, service: FlowService | undefined): void {
    if (service === undefined) return;
    const message = out.open(field);
    out.text(1, service.name);
    out.text(2, service.namespace);
    out.close(message);
  }

  function writeTransport(row: FlowRow): void {
    const field = transportFields[row.protocol];
    if (field === undefined) return;
    const layer4 = out.open(6);
    const transport = out.open(field);
    if (row.protocol === 1 || row.protocol === 58) {
      out.uint(1, row.icmpType);
      out.uint(2, row.icmpCode);
    } else {
      out.uint(1, row.sourcePort);
      out.uint(2, row.destinationPort);
      if (row.protocol === 6) out.bytes(3, tcpFlags[row.tcpFlags]!);
    }
    out.close(transport);
    out.close(layer4);
  }

  function writeAddresses(row: FlowRow): void {
    const { source, sourceAddress } = row;
    const ip = out.open(5);
    if (sourceAddress === source.address) out.bytes(1, encodeEnd(source).address);
    else out.text(1, sourceAddress);
    out.bytes(2, encodeEnd(row.destination).address);
    out.uint(3, row.ipv6 ? IPVersion.IPv6 : IPVersion.IPv4);
    out.close(ip);
  }

  function writeTexts(field: number, texts: readonly string[]): void {
    for (const text of texts) out.text(field, text);
  }

  function writeEventType(row: FlowRow): void {
    const event = out.open(19);
    out.uint(1, flowEventType(row));
    out.uint(2, flowSubType(row));
    out.close(event);
  }

  function writeInterface(row: FlowRow): void {
    const { ifindex } = row;
    if (ifindex === 0) return;
    const device = out.open(28);
    out.uint(1, ifindex);
    out.text(2, context.deviceName?.(ifindex) ?? '');
    out.close(device);
  }

  function writeIsReply(row: FlowRow): void {
    // Of a drop it is only known when the packet went back.
    if (isDrop(row) && !row.reply) return;
    const isReply = out.open(26);
    out.uint(1, row.reply ? 1 : 0);
    out.close(isReply);
  }

  function writeDns(dns: FlowDns | undefined): void {
    if (dns === undefined) return;
    const layer7 = out.open(15);
    out.uint(1, dns.response ? L7FlowType.RESPONSE : L7FlowType.REQUEST);
    out.uint(2, dns.latencyNs);
    const record = out.open(100);
    out.text(1, dns.query);
    for (const address of dns.addresses) out.text(2, address);
    out.uint(3, dns.ttl);
    for (const name of dns.cnames) out.text(4, name);
    out.text(5, 'datapath');
    out.uint(6, dns.rcode);
    for (const type of dns.types) out.text(7, type);
    for (const type of dns.recordTypes) out.text(8, type);
    out.close(record);
    out.close(layer7);
  }

  /** The fields of a Flow, in the order in which they are written. */
  const fields: readonly (readonly [field: number, write: (row: FlowRow) => void])[] = [
    [1, (row) => writeTime(1, row)],
    [2, (row) => out.uint(2, verdictOf(row))],
    [3, (row) => out.uint(3, dropReasonOf(row))],
    [5, writeAddresses],
    [6, writeTransport],
    [8, (row) => out.bytes(8, encodeEnd(row.source).endpoint)],
    [9, (row) => out.bytes(9, encodeEnd(row.destination).endpoint)],
    [10, (row) => out.uint(10, row.dns === undefined ? FlowType.L3_L4 : FlowType.L7)],
    [11, () => out.raw(flowNode)],
    [37, () => writeTexts(37, context.nodeLabels?.() ?? none)],
    [13, (row) => writeTexts(13, row.sourceNames)],
    [14, (row) => writeTexts(14, row.destinationNames)],
    [15, (row) => writeDns(row.dns)],
    [16, (row) => out.uint(16, row.reply ? 1 : 0)],
    [19, writeEventType],
    [20, (row) => writeService(20, row.sourceService)],
    [21, (row) => writeService(21, row.destinationService)],
    [22, (row) => out.uint(22, row.direction)],
    [24, (row) => out.uint(24, isTraced(row) ? observationPoint(row) : 0)],
    [25, (row) => out.uint(25, dropReasonOf(row))],
    [26, writeIsReply],
    [28, writeInterface],
    [34, (row) => out.bytes(34, uuid(row.seq))],
    [36, (row) => out.uint(36, isTraced(row) ? (traceReasons[row.type] ?? TraceReason.ESTABLISHED) : 0)],
    [41, () => out.bytes(41, emitter)],
    [policyFields.egress.allow, (row) => writePolicies('egress', 'allow', row.egressRules)],
    [policyFields.egress.deny, (row) => writePolicies('egress', 'deny', row.egressRules)],
    [policyFields.ingress.allow, (row) => writePolicies('ingress', 'allow', row.ingressRules)],
    [policyFields.ingress.deny, (row) => writePolicies('ingress', 'deny', row.ingressRules)],
    [policyLogField, (row) => writeTexts(policyLogField, logsOf(row.egressRules, row.ingressRules))],
    [100_000, (row) => out.text(100_000, flowSummary(row))],
    [150_000, (row) => writeExtensions(out, 150_000, row)],
  ];
  const writers = fields.filter(([field]) => mask?.fields.has(field) ?? true).map(([, write]) => write);

  function writeFlow(row: FlowRow): void {
    for (const write of writers) write(row);
  }

  function writeResponse(row: FlowRow): void {
    const message = out.open(1, true);
    const start = out.length;
    writeFlow(row);
    if (mask?.whole === false) out.raw(mask.masking(out.takeFrom(start)));
    out.close(message);
    out.raw(responseNode);
    writeTime(1001, row);
  }

  return {
    flow(row) {
      const start = out.length;
      writeFlow(row);
      return out.takeFrom(start);
    },
    response(row) {
      const start = out.length;
      writeResponse(row);
      return out.takeFrom(start);
    },
    writeResponse,
  };
}

const none: readonly string[] = [];
const isDrop = (row: FlowRow) => row.type === EventType.EVENT_DROP;
const isTraced = (row: FlowRow) => !isDrop(row) && row.dns === undefined;
const dropReasonOf = (row: FlowRow) => (isDrop(row) ? row.reason : 0);

const traceReasons: Readonly<Record<number, TraceReason>> = {
  [EventType.EVENT_NEW]: TraceReason.NEW,
  [EventType.EVENT_ICMP_ERROR]: TraceReason.RELATED,
};

/** Fields of Layer4 by protocol number. */
const transportFields: Readonly<Record<number, number>> = { 6: 1, 17: 2, 1: 3, 58: 4, 132: 5 };
