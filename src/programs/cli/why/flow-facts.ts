// From a flow of the contract to what matters for "why".
import {
  DropReason,
  type Endpoint,
  type Flow,
  FlowType,
  L7FlowType,
  type Policy,
  TraceReason,
  TrafficDirection,
  Verdict,
} from '../../../../proto/gen/flow/flow_pb.js';
import { rcodeText } from '../../../observe/dns/parse-dns.ts';
import type { WhyFlow } from '../../../observe/why/evidence.ts';
import { type FlowMore, moreOf } from '../observe/flow-more.ts';
import { timeMs } from '../top/traffic.ts';

/** The facts. */
export function flowFacts(flow: Flow): WhyFlow {
  const more = moreOf(flow);
  const dns = flow.l7?.record.case === 'dns' ? flow.l7.record.value : undefined;
  const { source: sourceAddress = '', destination: destinationAddress = '' } = flow.IP ?? {};
  const { protocol, port, icmp } = transportOf(flow);
  const denied = [...flow.egressDeniedBy, ...flow.ingressDeniedBy];
  return {
    timeMs: timeMs(flow),
    node: flow.nodeName,
    kind: kindOf(flow, more),
    source: endText(flow.source, sourceAddress, flow.sourceNames),
    destination: endText(flow.destination, destinationAddress, flow.destinationNames),
    sourceAddress,
    destinationAddress,
    protocol,
    port,
    direction:
      flow.trafficDirection === TrafficDirection.EGRESS
        ? 'egress'
        : flow.trafficDirection === TrafficDirection.INGRESS
          ? 'ingress'
          : 'unknown',
    ...(flow.verdict === Verdict.DROPPED && { reason: DropReason[flow.dropReasonDesc] ?? String(flow.dropReasonDesc) }),
    policies: [...new Set(denied.map(policyText))],
    ...(flow.destinationService && { service: `${flow.destinationService.namespace}/${flow.destinationService.name}` }),
    ...(more.end_cause !== undefined && { endCause: more.end_cause }),
    ...(more.closed_by !== undefined && { closedBy: more.closed_by }),
    ...(more.packets_sent !== undefined && { sent: more.packets_sent, received: more.packets_received }),
    ...(more.rtt_us !== undefined && { rttUs: more.rtt_us, retransmits: more.retransmits }),
    ...(more.source_process?.binary && { process: `${more.source_process.binary}[${more.source_process.pid}]` }),
    ...(dns && { query: dns.query, rcode: rcodeText(dns.rcode), answers: dns.ips.length }),
    ...(icmp !== undefined && { icmp }),
    summary: flow.Summary,
  };
}

function kindOf(flow: Flow, more: FlowMore): WhyFlow['kind'] {
  if (flow.verdict === Verdict.DROPPED) return 'dropped';
  if (flow.Type === FlowType.L7) return flow.l7?.type === L7FlowType.RESPONSE ? 'answer' : 'question';
  if (flow.traceReason === TraceReason.RELATED) return 'icmp error';
  if (more.report === 'end') return 'ended';
  return more.report === 'active' ? 'goes on' : 'begun';
}

function transportOf(flow: Flow): { protocol: string; port: number; icmp?: string } {
  const { case: name, value } = flow.l4?.protocol ?? {};
  if (value !== undefined && 'destinationPort' in value) {
    // A reply comes from the port that was asked.
    const port = flow.isReply === true && flow.Type === FlowType.L7 ? value.sourcePort : value.destinationPort;
    return { protocol: name!, port };
  }
  if (name === 'ICMPv4' || name === 'ICMPv6') return { protocol: name, port: 0, icmp: flow.Summary };
  return { protocol: name ?? 'IP', port: 0 };
}

function endText(end: Endpoint | undefined, address: string, names: readonly string[]): string {
  return end?.podName ? `${end.namespace}/${end.podName}` : (names[0] ?? address);
}

function policyText(policy: Policy): string {
  return `${policy.kind} ${policy.namespace === '' ? '' : `${policy.namespace}/`}${policy.name}`;
}
