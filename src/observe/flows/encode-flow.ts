// A flow's row as bytes of the contract: each reader of each flow costs this. What does not change between flows (ends,
// policies, the node) is encoded once and copied.
import { FlowType, IPVersion, L7FlowType, TraceReason } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld } from '../../core/identity.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import { clusterName } from './filter-values.ts';
import { writeExtensions } from './flow-extensions.ts';
import { endLabels, type FlowContext, flowEventType, flowSubType, flowUuid, observationPoint } from './flow-message.ts';
import { logsOf, policiesOf } from './flow-policies.ts';
import type { FlowDns, FlowEnd, FlowRow, FlowRules, FlowService } from './flow-row.ts';
import { flowSummary, verdictOf } from './flow-summary.ts';
import { tcpFlagFields } from './tcp-flags.ts';
import { createWireWriter } from './wire-writer.ts';

/** Encodes flows of one agent. */
export interface FlowEncoder {
  /** A Flow. */
  flow(row: FlowRow): Uint8Array;
  /** A GetFlowsResponse with the flow; `mask` cuts what was not asked for. */
  response(row: FlowRow, mask?: (flow: Uint8Array) => Uint8Array): Uint8Array;
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

/** Makes an encoder. */
export function createFlowEncoder(context: FlowContext): FlowEncoder {
  const out = createWireWriter();
  const part = createWireWriter();
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

  function writePolicies(direction: keyof typeof policyFields, rules: FlowRules | undefined): void {
    if (rules === undefined) return;
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
    const field = policyFields[direction][rules.verdict === 'allow' ? 'allow' : 'deny'];
    for (const policy of encoded) out.bytes(field, policy);
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

  function writeDns(dns: FlowDns): void {
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

  /** The fields of a Flow, by number. */
  function writeFlow(row: FlowRow): void {
    const dropped = row.type === EventType.EVENT_DROP;
    const traced = !dropped && row.dns === undefined;
    const source = encodeEnd(row.source);
    const destination = encodeEnd(row.destination);
    writeTime(1, row);
    out.uint(2, verdictOf(row));
    if (dropped) out.uint(3, row.reason);
    const ip = out.open(5);
    if (row.sourceAddress === row.source.address) out.bytes(1, source.address);
    else out.text(1, row.sourceAddress);
    out.bytes(2, destination.address);
    out.uint(3, row.ipv6 ? IPVersion.IPv6 : IPVersion.IPv4);
    out.close(ip);
    writeTransport(row);
    out.bytes(8, source.endpoint);
    out.bytes(9, destination.endpoint);
    out.uint(10, row.dns === undefined ? FlowType.L3_L4 : FlowType.L7);
    out.raw(flowNode);
    for (const label of context.nodeLabels?.() ?? []) out.text(37, label);
    for (const name of row.sourceNames) out.text(13, name);
    for (const name of row.destinationNames) out.text(14, name);
    if (row.dns !== undefined) writeDns(row.dns);
    out.uint(16, row.reply ? 1 : 0);
    const event = out.open(19);
    out.uint(1, flowEventType(row));
    out.uint(2, flowSubType(row));
    out.close(event);
    writeService(20, row.sourceService);
    writeService(21, row.destinationService);
    out.uint(22, row.direction);
    if (traced) out.uint(24, observationPoint(row));
    if (dropped) out.uint(25, row.reason);
    // Of a drop it is only known when the packet went back.
    if (!dropped || row.reply) {
      const isReply = out.open(26);
      out.uint(1, row.reply ? 1 : 0);
      out.close(isReply);
    }
    out.text(34, flowUuid(context.run, row.seq));
    if (traced) out.uint(36, traceReasons[row.type] ?? TraceReason.ESTABLISHED);
    out.bytes(41, emitter);
    writePolicies('egress', row.egressRules);
    writePolicies('ingress', row.ingressRules);
    for (const log of logsOf(row.egressRules, row.ingressRules)) out.text(policyLogField, log);
    out.text(100_000, flowSummary(row));
    writeExtensions(out, 150_000, row);
  }

  function flow(row: FlowRow): Uint8Array {
    writeFlow(row);
    return out.take();
  }
  return {
    flow,
    response(row, mask) {
      if (mask !== undefined) out.bytes(1, mask(flow(row)));
      else {
        const message = out.open(1);
        writeFlow(row);
        out.close(message);
      }
      out.raw(responseNode);
      writeTime(1001, row);
      return out.take();
    },
  };
}

const traceReasons: Readonly<Record<number, TraceReason>> = {
  [EventType.EVENT_NEW]: TraceReason.NEW,
  [EventType.EVENT_ICMP_ERROR]: TraceReason.RELATED,
};

/** Fields of Layer4 by protocol number. */
const transportFields: Readonly<Record<number, number>> = { 6: 1, 17: 2, 1: 3, 58: 4, 132: 5 };
