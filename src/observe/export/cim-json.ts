// Events in the words of Splunk's Common Information Model: Network Traffic, Network Resolution, Endpoint.Processes.
// docs/export.md has the table, and the event types that tag them.
import { EventType } from '../../kernel/datapath.gen.ts';
import { rcodeText } from '../dns/parse-dns.ts';
import type { FlowContext } from '../flows/flow-message.ts';
import { policiesOf } from '../flows/flow-policies.ts';
import { FlowDirection, type FlowEnd, type FlowRow } from '../flows/flow-row.ts';
import { endCauseOf, flowSummary, stagedDenials, verdictOf } from '../flows/flow-summary.ts';
import { tcpFlagText } from '../flows/tcp-flags.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import { dropReasonText } from './ecs-json.ts';
import { type ExportEvent, eventId, eventTimeMs, msText } from './export-event.ts';
import { type JsonObject, timeText } from './flow-json.ts';
import { transportName, verdictText } from './flow-words.ts';

/** An event in CIM; aggregates have no place in it. */
export function cimJson(event: ExportEvent, context: FlowContext): JsonObject {
  const common = { vendor_product: 'Weir', dvc: context.nodeName, event_id: eventId(event, context) };
  switch (event.kind) {
    case 'flow':
      return { ...(event.row.dns === undefined ? trafficOf(event.row) : resolutionOf(event.row)), ...common };
    case 'process': {
      const { kind, process, timeMs } = event.event;
      return {
        timestamp: msText(timeMs),
        action: kind === 'exec' ? 'started' : 'stopped',
        dest: context.nodeName,
        ...processOf(process),
        process_start_time: process.startMs / 1000,
        ...(process.parent && {
          parent_process: commandOf(process.parent),
          parent_process_exec: process.parent.binary,
          parent_process_id: process.parent.pid,
          parent_process_guid: process.parent.execId,
          parent_process_name: nameOf(process.parent),
          parent_process_path: process.parent.binary,
        }),
        exit_code: process.exit?.code,
        exit_signal: process.exit?.signal || undefined,
        ...common,
      };
    }
    case 'lost':
      return {
        timestamp: msText(eventTimeMs(event)),
        lost_source: event.loss.source,
        lost_events: event.loss.count,
        ...common,
      };
    case 'aggregate':
      throw new Error('aggregates are written as flows only');
  }
}

function endsOf(row: FlowRow): JsonObject {
  return {
    timestamp: timeText(row.seconds, row.nanos),
    src: nameOfEnd(row.source, row.sourceAddress, row.sourceNames),
    src_ip: row.sourceAddress,
    src_port: row.sourcePort || undefined,
    dest: nameOfEnd(row.destination, row.destination.address, row.destinationNames),
    dest_ip: row.destination.address,
    dest_port: row.destinationPort || undefined,
    transport: transportName(row.protocol),
    ...kubernetesOf('src', row.source),
    ...kubernetesOf('dest', row.destination),
    dest_service: row.destinationService && `${row.destinationService.namespace}/${row.destinationService.name}`,
    ...(row.sourceProcess && processOf(row.sourceProcess)),
  };
}

function trafficOf(row: FlowRow): JsonObject {
  const dropped = row.type === EventType.EVENT_DROP;
  const isEnd = row.type === EventType.EVENT_END;
  const isReport = isEnd || row.type === EventType.EVENT_ACTIVE;
  const rules = [row.egressRules, row.ingressRules].flatMap((each) => (each === undefined ? [] : policiesOf(each)));
  const [out, back] = row.reply ? [1, 0] : [0, 1];
  const staged = stagedDenials(row.flags);
  return {
    ...endsOf(row),
    action: dropped ? 'blocked' : isEnd ? 'teardown' : 'allowed',
    direction:
      row.direction === FlowDirection.ingress
        ? 'inbound'
        : row.direction === FlowDirection.egress
          ? 'outbound'
          : undefined,
    protocol: 'ip',
    protocol_version: row.ipv6 ? 'ipv6' : 'ipv4',
    ...(isReport && {
      bytes: row.bytes[0] + row.bytes[1],
      bytes_out: row.bytes[out],
      bytes_in: row.bytes[back],
      packets: row.packets[0] + row.packets[1],
      packets_out: row.packets[out],
      packets_in: row.packets[back],
      duration: Math.round(row.durationNs / 1e6) / 1000,
      ...(row.tcp && { response_time: row.tcp.rttUs / 1e6, retransmits: row.tcp.retransmits }),
    }),
    tcp_flag: row.protocol === 6 && row.tcpFlags !== 0 ? tcpFlagText(row.tcpFlags) : undefined,
    ...((row.protocol === 1 || row.protocol === 58) && { icmp_type: row.icmpType, icmp_code: row.icmpCode }),
    rule:
      rules.length === 0
        ? undefined
        : rules.map((each) => `${each.namespace === '' ? '' : `${each.namespace}/`}${each.name}`),
    reason: dropped ? dropReasonText(row.reason) : isEnd ? endCauseOf(row) : undefined,
    verdict: verdictText(verdictOf(row)),
    staged_denied: staged.length === 0 ? undefined : staged,
    reports_held_back: row.suppressed || undefined,
    message: flowSummary(row),
  };
}

function resolutionOf(row: FlowRow): JsonObject {
  const dns = row.dns!;
  return {
    ...endsOf(row),
    message_type: dns.response ? 'Response' : 'Query',
    query: dns.query.replace(/\.$/, ''),
    query_type: 'Query',
    record_type: dns.types[0],
    ...(dns.response && {
      reply_code: rcodeText(dns.rcode),
      reply_code_id: dns.rcode,
      answer: [...dns.addresses, ...dns.cnames],
      answer_count: dns.addresses.length + dns.cnames.length,
      ttl: dns.ttl,
      response_time: dns.latencyNs === 0 ? undefined : dns.latencyNs / 1e9,
    }),
  };
}

function nameOfEnd(end: FlowEnd, address: string, names: readonly string[]): string {
  if (end.pod !== '') return `${end.namespace}/${end.pod}`;
  return names[0]?.replace(/\.$/, '') ?? address;
}

function kubernetesOf(prefix: 'src' | 'dest', end: FlowEnd): JsonObject {
  return {
    [`${prefix}_namespace`]: end.namespace || undefined,
    [`${prefix}_pod`]: end.pod || undefined,
    [`${prefix}_workload`]: end.workloadName === '' ? undefined : `${end.workloadKind}/${end.workloadName}`,
    [`${prefix}_identity`]: end.identity,
  };
}

function commandOf(row: ProcessRow): string {
  return row.arguments === '' ? row.binary : `${row.binary} ${row.arguments}`;
}

function nameOf(row: ProcessRow): string {
  return row.binary.slice(row.binary.lastIndexOf('/') + 1);
}

function processOf(row: ProcessRow): JsonObject {
  return {
    process: commandOf(row),
    process_exec: row.binary,
    process_path: row.binary,
    process_name: nameOf(row),
    process_id: row.pid,
    process_guid: row.execId,
    process_current_directory: row.cwd || undefined,
    user_id: row.uid,
    container_id: row.container?.id,
    container_name: row.container?.name || undefined,
    container_image: row.container?.image || undefined,
    process_namespace: row.container?.namespace || undefined,
    process_pod: row.container?.pod || undefined,
  };
}
