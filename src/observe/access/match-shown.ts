// Filters on flows as they are shown, by the very predicates that an agent has for its rows: what is hidden cannot be
// found by asking for it.
import type { Flow, FlowFilter } from '../../../proto/gen/flow/flow_pb.js';
import { Verdict } from '../../../proto/gen/flow/flow_pb.js';
import { EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import { type CelMatch, compileCel } from '../flows/cel-filter.ts';
import { FilterError, nodeNameMatch } from '../flows/filter-values.ts';
import { compileFilter, compileFilters } from '../flows/flow-filter.ts';
import type { FlowEnd, FlowRow } from '../flows/flow-row.ts';
import { tcpFlagBits } from '../flows/tcp-flags.ts';

type ShownMatch = (flow: Flow) => boolean;

/** One predicate for a whitelist and a blacklist; throws FilterError as the agents do. */
export function matchShown(whitelist: readonly FlowFilter[], blacklist: readonly FlowFilter[]): ShownMatch {
  for (const { nodeLabels } of [...whitelist, ...blacklist])
    if (nodeLabels.length > 0) throw new FilterError('node_labels: labels of nodes are for administrators');
  // For its limits; the predicates that are used are compiled one by one.
  compileFilters(whitelist, blacklist, noContext);
  if (whitelist.length === 0 && blacklist.length === 0) return () => true;
  const wanted = whitelist.map(compileShown);
  const unwanted = blacklist.map(compileShown);
  return (flow) => {
    const row = rowOf(flow);
    return (
      (wanted.length === 0 || wanted.some((match) => match(flow, row))) && !unwanted.some((match) => match(flow, row))
    );
  };
}

const noContext = { nodeName: '', version: '', run: '0'.repeat(16) };

function compileShown(filter: FlowFilter): (flow: Flow, row: FlowRow) => boolean {
  const { uuid, nodeName, eventType, verdict, experimental, ...rest } = filter;
  const onRow = compileFilter(
    { ...rest, uuid: [], nodeName: [], eventType: [], verdict: [], experimental: undefined },
    noContext,
  );
  const uuids = new Set(uuid.map((each) => each.toLowerCase()));
  const nodes = nodeName.map(nodeNameMatch);
  const expressions = (experimental?.celExpression ?? []).map(compileExpression);
  return (flow, row) =>
    (uuids.size === 0 || uuids.has(flow.uuid)) &&
    (nodes.length === 0 || nodes.some((match) => match(flow.nodeName))) &&
    (eventType.length === 0 ||
      eventType.some(
        ({ type, subType, matchSubType }) =>
          type === flow.eventType?.type && (!matchSubType || subType === flow.eventType.subType),
      )) &&
    (verdict.length === 0 || verdict.includes(flow.verdict)) &&
    onRow(row) &&
    (expressions.length === 0 || expressions.some((match) => match(flow)));
}

function compileExpression(text: string): CelMatch {
  const compiled = compileCel(text);
  if (!compiled.ok) throw new FilterError(`experimental.cel_expression: ${compiled.reason}`);
  return compiled.value;
}

function endOf(flow: Flow, side: 'source' | 'destination'): FlowEnd {
  const end = flow[side];
  return {
    address: flow.IP?.[side] ?? '',
    identity: end?.identity ?? 0,
    labels: end?.labels ?? [],
    endpointId: end?.ID ?? 0,
    ifindex: -1,
    namespace: end?.namespace ?? '',
    pod: end?.podName ?? '',
    workloadKind: end?.workloads[0]?.kind ?? '',
    workloadName: end?.workloads[0]?.name ?? '',
  };
}

const protocolNumbers = { TCP: 6, UDP: 17, SCTP: 132, ICMPv4: 1, ICMPv6: 58, VRRP: 112, IGMP: 2 } as const;
const dropEvent = 1;

/** The row that such a flow would be made of, in what filters ask for. */
function rowOf(flow: Flow): FlowRow {
  const protocol = flow.l4?.protocol ?? ({ case: undefined } as const);
  const ports =
    protocol.case === 'TCP' || protocol.case === 'UDP' || protocol.case === 'SCTP' ? protocol.value : undefined;
  const icmp = protocol.case === 'ICMPv4' || protocol.case === 'ICMPv6' ? protocol.value : undefined;
  const flags = protocol.case === 'TCP' ? protocol.value.flags : undefined;
  const dns = flow.l7?.record.case === 'dns' ? flow.l7.record.value : undefined;
  const reply = flow.isReply ?? flow.reply;
  return {
    seq: 0,
    ifindex: 0, // is never shown
    seconds: Number(flow.time?.seconds ?? 0n),
    nanos: flow.time?.nanos ?? 0,
    type:
      flow.eventType?.type === dropEvent
        ? EventType.EVENT_DROP
        : dns === undefined
          ? EventType.EVENT_NEW
          : EventType.EVENT_DNS,
    direction: flow.trafficDirection,
    protocol: protocol.case === undefined ? 0 : protocolNumbers[protocol.case],
    ipv6: flow.IP?.ipVersion === 2,
    reply,
    source: endOf(flow, 'source'),
    destination: endOf(flow, 'destination'),
    sourceService: flow.sourceService,
    destinationService: flow.destinationService,
    sourceAddress: flow.IP?.source ?? '',
    sourcePort: ports?.sourcePort ?? 0,
    destinationPort: ports?.destinationPort ?? 0,
    tcpFlags:
      flags === undefined
        ? 0
        : Object.entries(tcpFlagBits).reduce(
            (bits, [name, bit]) => (flags[name as keyof typeof tcpFlagBits] ? bits | bit : bits),
            0,
          ),
    icmpType: icmp?.type ?? 0,
    icmpCode: icmp?.code ?? 0,
    reason: flow.dropReasonDesc,
    flags: flow.verdict === Verdict.AUDIT ? EventFlags.EVENT_AUDITED_INGRESS : 0,
    bytes: [0, 0],
    packets: [0, 0],
    durationNs: 0,
    suppressed: 0,
    egressRules: undefined,
    ingressRules: undefined,
    sourceProcess: undefined,
    destinationProcess: undefined,
    sourceNames: flow.sourceNames,
    destinationNames: flow.destinationNames,
    closedBy: 0,
    tcp: undefined,
    dns: dns && {
      response: reply,
      query: dns.query,
      types: dns.qtypes,
      rcode: dns.rcode,
      addresses: dns.ips,
      cnames: dns.cnames,
      recordTypes: dns.rrtypes,
      ttl: dns.ttl,
      latencyNs: 0,
    },
  };
}
