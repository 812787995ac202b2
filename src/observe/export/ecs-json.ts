// Events in the Elastic Common Schema. docs/export.md has the table.
import { DropReason } from '../../../proto/gen/flow/flow_pb.js';
import { EventType } from '../../kernel/datapath.gen.ts';
import { rcodeText } from '../dns/parse-dns.ts';
import type { FlowContext } from '../flows/flow-message.ts';
import { policiesOf, ruleLabel } from '../flows/flow-policies.ts';
import { FlowDirection, type FlowEnd, type FlowRow, type FlowService } from '../flows/flow-row.ts';
import { endCauseOf, flowSummary, stagedDenials, verdictOf } from '../flows/flow-summary.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import { type ExportEvent, eventId, eventTimeMs, msText } from './export-event.ts';
import { type JsonObject, timeText } from './flow-json.ts';
import { transportName, verdictText } from './flow-words.ts';

const ecsVersion = '8.17.0';

/** An event in ECS; aggregates have no place in it. */
export function ecsJson(event: ExportEvent, context: FlowContext): JsonObject {
  const common = {
    ecs: { version: ecsVersion },
    host: { name: context.nodeName },
    observer: {
      vendor: 'Weir',
      product: 'Weir',
      type: 'firewall',
      version: context.version,
      hostname: context.nodeName,
    },
  };
  const dataset = (name: string) => ({ id: eventId(event, context), module: 'weir', dataset: `weir.${name}` });
  switch (event.kind) {
    case 'flow':
      return { ...flowOf(event.row, dataset(event.row.dns === undefined ? 'flow' : 'dns')), ...common };
    case 'process': {
      const { kind, process, timeMs } = event.event;
      const { container, exit } = process;
      return {
        '@timestamp': msText(timeMs),
        event: {
          ...dataset('process'),
          kind: 'event',
          category: ['process'],
          type: [kind === 'exec' ? 'start' : 'end'],
          action: kind,
        },
        process: { ...processOf(process), exit_code: exit?.code, ...(exit && { end: msText(exit.atMs) }) },
        user: { id: String(process.uid) },
        ...containerOf(process),
        orchestrator: container && orchestratorOf(container.namespace, container.pod),
        ...common,
      };
    }
    case 'lost':
      return {
        '@timestamp': msText(eventTimeMs(event)),
        event: { ...dataset('lost'), kind: 'pipeline_error', category: ['network'], type: ['error'], action: 'lost' },
        message: `${event.loss.count} events were lost: ${event.loss.source}`,
        weir: { lost: { source: event.loss.source, count: event.loss.count } },
        ...common,
      };
    case 'aggregate':
      throw new Error('aggregates are written as flows only');
  }
}

function flowOf(row: FlowRow, dataset: JsonObject): JsonObject {
  const dropped = row.type === EventType.EVENT_DROP;
  const isEnd = row.type === EventType.EVENT_END;
  const isReport = isEnd || row.type === EventType.EVENT_ACTIVE;
  const time = timeText(row.seconds, row.nanos);
  const policies = [row.egressRules, row.ingressRules].flatMap((rules) =>
    rules === undefined ? [] : policiesOf(rules),
  );
  const [sent, received] = row.reply ? [1, 0] : [0, 1];
  const staged = stagedDenials(row.flags);
  return {
    '@timestamp': time,
    event: {
      ...dataset,
      kind: dropped ? 'alert' : 'event',
      category: ['network'],
      type: [
        ...(row.dns === undefined ? ['connection'] : ['protocol']),
        ...(dropped
          ? ['denied']
          : row.type === EventType.EVENT_NEW
            ? ['start', 'allowed']
            : isEnd
              ? ['end']
              : ['info']),
      ],
      action: dropped ? 'dropped' : row.dns !== undefined ? 'dns' : isEnd ? 'end' : isReport ? 'active' : 'new',
      outcome: dropped ? 'failure' : 'success',
      reason: dropped ? dropReasonText(row.reason) : isEnd ? endCauseOf(row) : undefined,
      ...(isReport && {
        duration: row.durationNs,
        start: msText(row.seconds * 1000 + row.nanos / 1e6 - row.durationNs / 1e6),
        ...(isEnd && { end: time }),
      }),
    },
    message: flowSummary(row),
    source: endOf(
      row.source,
      row.sourceAddress,
      row.sourcePort,
      row.sourceNames,
      isReport ? [row.bytes[sent]!, row.packets[sent]!] : undefined,
    ),
    destination: endOf(
      row.destination,
      row.destination.address,
      row.destinationPort,
      row.destinationNames,
      isReport ? [row.bytes[received]!, row.packets[received]!] : undefined,
    ),
    network: {
      type: row.ipv6 ? 'ipv6' : 'ipv4',
      iana_number: String(row.protocol),
      transport: transportName(row.protocol),
      ...(row.dns !== undefined && { protocol: 'dns' }),
      direction: directionText(row.direction),
      ...(isReport && { bytes: row.bytes[0] + row.bytes[1], packets: row.packets[0] + row.packets[1] }),
    },
    ...(policies.length > 0 && {
      rule: {
        category: 'network-policy',
        name: policies.map((policy) => (policy.namespace === '' ? policy.name : `${policy.namespace}/${policy.name}`)),
        ruleset: [...new Set(policies.map((policy) => policy.kind))],
        id: policies.flatMap(({ labels }) =>
          labels.filter((label) => label.startsWith(ruleLabel)).map((label) => label.slice(ruleLabel.length)),
        ),
      },
    }),
    ...(row.sourceProcess && { process: processOf(row.sourceProcess), ...containerOf(row.sourceProcess) }),
    ...(row.dns && {
      dns: {
        type: row.dns.response ? 'answer' : 'query',
        question: { name: row.dns.query.replace(/\.$/, ''), type: row.dns.types[0] },
        ...(row.dns.response && {
          response_code: rcodeText(row.dns.rcode),
          resolved_ip: row.dns.addresses,
          answers: row.dns.addresses.map((data) => ({ data, ttl: row.dns!.ttl })),
        }),
      },
    }),
    orchestrator: orchestratorOf(row.source.namespace, row.source.pod),
    weir: {
      verdict: verdictText(verdictOf(row)),
      drop_reason: dropped ? row.reason : undefined,
      source: kubernetesOf(row.source, row.sourceService),
      destination: kubernetesOf(row.destination, row.destinationService),
      destination_process: row.destinationProcess && processOf(row.destinationProcess),
      tcp: row.tcp && {
        handshake_us: row.tcp.handshakeUs || undefined,
        rtt_us: row.tcp.rttUs,
        min_rtt_us: row.tcp.minRttUs,
        retransmits: row.tcp.retransmits,
      },
      staged_denied: staged.length > 0 ? staged : undefined,
      reports_held_back: row.suppressed || undefined,
    },
  };
}

/** The contract's name, or the number of a reason of Weir's own. */
export function dropReasonText(reason: number): string {
  return DropReason[reason] ?? String(reason);
}

function directionText(direction: number): string {
  if (direction === FlowDirection.ingress) return 'ingress';
  return direction === FlowDirection.egress ? 'egress' : 'unknown';
}

function endOf(
  end: FlowEnd,
  address: string,
  port: number,
  names: readonly string[],
  counts: readonly [number, number] | undefined,
): JsonObject {
  return {
    address: names[0]?.replace(/\.$/, '') || end.pod || address,
    ip: address,
    port: port || undefined,
    domain: names[0]?.replace(/\.$/, ''),
    ...(counts && { bytes: counts[0], packets: counts[1] }),
  };
}

function kubernetesOf(end: FlowEnd, service: FlowService | undefined): JsonObject {
  return {
    namespace: end.namespace || undefined,
    pod: end.pod || undefined,
    workload: end.workloadName === '' ? undefined : { kind: end.workloadKind, name: end.workloadName },
    service: service && `${service.namespace}/${service.name}`,
    identity: end.identity,
    labels: end.labels.length > 0 ? end.labels : undefined,
  };
}

function orchestratorOf(namespace: string, pod: string): JsonObject | undefined {
  if (pod === '') return undefined;
  return { type: 'kubernetes', namespace, resource: { type: 'pod', name: pod } };
}

function containerOf({ container }: ProcessRow): JsonObject {
  if (container === undefined) return {};
  return {
    container: { id: container.id, name: container.name || undefined, image: { name: container.image || undefined } },
  };
}

function processOf(row: ProcessRow): JsonObject {
  return {
    entity_id: row.execId,
    pid: row.pid,
    executable: row.binary || undefined,
    name: row.binary.slice(row.binary.lastIndexOf('/') + 1) || undefined,
    command_line: row.arguments === '' ? row.binary : `${row.binary} ${row.arguments}`,
    working_directory: row.cwd || undefined,
    start: msText(row.startMs),
    user: { id: String(row.uid) },
    ...(row.parent && {
      parent: { entity_id: row.parent.execId, pid: row.parent.pid, executable: row.parent.binary || undefined },
    }),
  };
}
