// Metrics of flows under the names that dashboards of the ecosystem ask for. Rows are counted as they come, without
// building flows.

import { Verdict, DropReason as WireDropReason } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld } from '../../core/identity.ts';
import { DropReason, dropReasonName, EventFlags, EventOffset, EventType } from '../../kernel/datapath.gen.ts';
import { rcodeText } from '../dns/parse-dns.ts';
import type { NewRow } from '../flows/flow-ring.ts';
import { FlowDirection, type FlowDns, type FlowEnd, type FlowTcp } from '../flows/flow-row.ts';
import { verdictOf } from '../flows/flow-summary.ts';
import { shownTcpFlags, tcpFlagBits } from '../flows/tcp-flags.ts';
import { type Counted, createCounted } from './counted.ts';
import { contextText, labelText } from './flow-contexts.ts';
import type { ContextName, MetricOptions } from './metric-options.ts';

/** What metrics need of a flow. */
export interface CountedFlow {
  readonly seq: number;
  readonly type: number;
  readonly reason: number;
  readonly flags: number;
  readonly protocol: number;
  readonly direction: number;
  readonly reply: boolean;
  readonly tcpFlags: number;
  readonly icmpType: number;
  readonly source: FlowEnd;
  readonly destination: FlowEnd;
  readonly names: readonly string[];
  readonly destinationPort: number;
  readonly hasRules: boolean;
  /** Valid only while the flow is counted. */
  readonly tcp: FlowTcp | undefined;
  readonly dns: FlowDns | undefined;
}

/** Metrics of flows. */
export interface FlowMetrics {
  count(flow: CountedFlow): void;
  readonly counters: readonly Counted[];
}

const subtypeNumbers = { '': 0, DNS: 1, 'to-endpoint': 2, 'from-endpoint': 3, 'to-host': 4, 'to-network': 5 } as const;
const protocolNames: Readonly<Record<number, string>> = { 1: 'ICMPv4', 6: 'TCP', 17: 'UDP', 58: 'ICMPv6', 132: 'SCTP' };
const protocolText = (flow: CountedFlow) =>
  flow.dns !== undefined ? 'DNS' : (protocolNames[flow.protocol] ?? `Unknown flow`);
const verdictText = (flow: CountedFlow) => Verdict[verdictOf(flow)]!;
const dropReasonText = (reason: number) => WireDropReason[reason] ?? dropReasonName[reason] ?? String(reason);
const isDrop = (flow: CountedFlow) => flow.type === EventType.EVENT_DROP;

/** Types without a name are one: a stranger can make up sixty thousand. */
const knownType = (type: string) => (/^TYPE\d+$/.test(type) ? 'other' : type);

type Labels = Readonly<Record<string, string>>;

/** Adds one: `own` is a number or text that stands for the counter's own labels, which are asked for when they are new. */
type AddOne = (to: Counted, flow: CountedFlow, own: string | number, labels: (flow: CountedFlow) => Labels) => void;

/** Makes the metrics that are wanted. `limit`: rows of each. */
export function createFlowMetrics(wanted: readonly MetricOptions[], limit: number): FlowMetrics {
  const counters: Counted[] = [];
  const handlers: ((flow: CountedFlow) => void)[] = [];
  for (const options of wanted) {
    const contexts = contextsOf(options);
    const counter = (name: string, help: string, own: readonly string[]) => {
      const made = createCounted(name, help, [...own, ...contexts.labelNames], limit);
      counters.push(made);
      return made;
    };
    const add: AddOne = (to, flow, own, labels) => {
      const context = contexts.key(flow);
      const key = context === '' ? own : `${own}\u0000${context}`;
      if (!to.add(key, flow.seq)) to.begin(key, flow.seq, { ...labels(flow), ...contexts.labels(flow) });
    };
    handlers.push(handlerOf(options, counter, add));
  }
  return {
    counters,
    count(flow) {
      for (const handle of handlers) handle(flow);
    },
  };
}

function handlerOf(
  options: MetricOptions,
  counter: (name: string, help: string, own: readonly string[]) => Counted,
  add: AddOne,
): (flow: CountedFlow) => void {
  switch (options.name) {
    case 'flow': {
      const processed = counter('hubble_flows_processed_total', 'Flows that were seen.', [
        'protocol',
        'subtype',
        'type',
        'verdict',
      ]);
      const labels = (flow: CountedFlow) => ({
        protocol: protocolText(flow),
        subtype: subtypeOf(flow),
        type: flow.dns !== undefined ? 'L7' : isDrop(flow) ? 'Drop' : 'Trace',
        verdict: verdictText(flow),
      });
      return (flow) => {
        const point = subtypeNumbers[subtypeOf(flow)];
        add(processed, flow, ((point * 16 + verdictOf(flow)) * 16 + flow.type) * 256 + flow.protocol, labels);
      };
    }
    case 'drop': {
      const drops = counter('hubble_drop_total', 'Packets that were dropped and reported.', ['protocol', 'reason']);
      const labels = (flow: CountedFlow) => ({
        protocol: protocolText(flow),
        reason: dropReasonText(flow.reason),
      });
      return (flow) => {
        if (isDrop(flow)) add(drops, flow, flow.reason * 256 + flow.protocol, labels);
      };
    }
    case 'tcp': {
      const flags = counter('hubble_tcp_flags_total', 'Flows by the TCP flags of their packets.', ['family', 'flag']);
      const isSix = (flow: CountedFlow) => (flow.flags & EventFlags.EVENT_IPV6) !== 0;
      const labelsOf = (flag: string) => (flow: CountedFlow) => ({ family: isSix(flow) ? 'IPv6' : 'IPv4', flag });
      const [synAck, syn, fin, rst] = [labelsOf('SYN-ACK'), labelsOf('SYN'), labelsOf('FIN'), labelsOf('RST')];
      const { SYN, ACK, FIN, RST } = tcpFlagBits;
      return (flow) => {
        if (flow.protocol !== 6 || isDrop(flow)) return;
        const family = isSix(flow) ? 256 : 0;
        if ((flow.tcpFlags & (SYN | ACK)) === (SYN | ACK)) add(flags, flow, family + (SYN | ACK), synAck);
        else if ((flow.tcpFlags & SYN) !== 0) add(flags, flow, family + SYN, syn);
        if ((flow.tcpFlags & FIN) !== 0) add(flags, flow, family + FIN, fin);
        if ((flow.tcpFlags & RST) !== 0) add(flags, flow, family + RST, rst);
      };
    }
    case 'icmp': {
      const icmp = counter('hubble_icmp_total', 'Messages of ICMP.', ['family', 'type']);
      return (flow) => {
        if (flow.protocol !== 1 && flow.protocol !== 58) return;
        add(icmp, flow, flow.protocol * 256 + flow.icmpType, () => ({
          family: flow.protocol === 1 ? 'IPv4' : 'IPv6',
          type: String(flow.icmpType),
        }));
      };
    }
    case 'port-distribution': {
      const ports = counter('hubble_port_distribution_total', 'New connections by their destination port.', [
        'port',
        'protocol',
      ]);
      return (flow) => {
        if (flow.type !== EventType.EVENT_NEW || flow.reply) return;
        add(ports, flow, flow.destinationPort * 256 + flow.protocol, () => ({
          port: String(flow.destinationPort),
          protocol: protocolText(flow),
        }));
      };
    }
    case 'flows-to-world': {
      const own = ['protocol', 'verdict', ...(options.port ? ['port'] : [])];
      const world = counter('hubble_flows_to_world_total', 'Flows to outside of the cluster.', own);
      return (flow) => {
        if (!isWorld(flow.destination.identity) || flow.reply || flow.dns !== undefined) return;
        if (isDrop(flow) ? !options.anyDrop && !isDenied(flow) : flow.type !== EventType.EVENT_NEW) return;
        if (options.synOnly && flow.protocol === 6 && (flow.tcpFlags & tcpFlagBits.SYN) === 0) return;
        const port = options.port ? flow.destinationPort : 0;
        add(world, flow, `${flow.protocol} ${verdictOf(flow)} ${port}`, () => ({
          protocol: protocolText(flow),
          verdict: verdictText(flow),
          ...(options.port && { port: String(port) }),
        }));
      };
    }
    case 'policy': {
      const verdicts = counter('hubble_policy_verdicts_total', 'New connections and denials by what policy said.', [
        'direction',
        'match',
        'action',
      ]);
      const labels = (flow: CountedFlow) => ({
        direction: flow.direction === FlowDirection.egress ? 'egress' : 'ingress',
        match: flow.hasRules ? 'l3-l4' : isDenied(flow) ? 'none' : 'all',
        action: isDenied(flow) ? 'dropped' : verdictText(flow).toLowerCase(),
      });
      return (flow) => {
        const denied = isDenied(flow);
        if (!denied && flow.type !== EventType.EVENT_NEW) return;
        const egress = flow.direction === FlowDirection.egress ? 1 : 0;
        add(verdicts, flow, verdictOf(flow) * 8 + (denied ? 4 : 0) + (flow.hasRules ? 2 : 0) + egress, labels);
      };
    }
    case 'dns': {
      const own = [...(options.query ? ['query'] : []), 'rcode', 'qtypes', 'ips_returned'];
      const queries = counter('hubble_dns_queries_total', 'Questions to name servers.', own);
      const responses = counter('hubble_dns_responses_total', 'Answers of name servers.', own);
      const types = counter('hubble_dns_response_types_total', 'Records in answers of name servers.', [
        ...(options.query ? ['query'] : []),
        'type',
        'qtypes',
      ]);
      return (flow) => {
        const dns = flow.dns;
        if (dns === undefined || (options.ignoreAaaa && dns.types.includes('AAAA'))) return;
        const qtypes = dns.types.map(knownType).join(',');
        const query = options.query ? dns.query.replace(/\.$/, '') : '';
        const shared: Labels = options.query ? { query } : {};
        const rcode = dns.response ? rcodeText(dns.rcode) : '';
        const ips = dns.response ? String(dns.addresses.length) : '0';
        const key = `${query} ${rcode} ${qtypes} ${ips}`;
        add(dns.response ? responses : queries, flow, key, () => ({ ...shared, rcode, qtypes, ips_returned: ips }));
        if (!dns.response) return;
        for (const type of new Set(dns.recordTypes.map(knownType)))
          add(types, flow, `${query} ${type} ${qtypes}`, () => ({ ...shared, type, qtypes }));
      };
    }
  }
}

const isDenied = (flow: CountedFlow) => isDrop(flow) && flow.reason === DropReason.DROP_POLICY_DENIED;
const noContext = '';

/** Labels that name the ends, and a text that stands for their values. */
function contextsOf(options: MetricOptions): {
  readonly labelNames: readonly string[];
  key(flow: CountedFlow): string;
  labels(flow: CountedFlow): Labels;
} {
  const asked = (base: readonly ContextName[], egress: readonly ContextName[], ingress: readonly ContextName[]) =>
    base.length + egress.length + ingress.length > 0;
  const hasSource = asked(options.source, options.sourceEgress, options.sourceIngress);
  const hasDestination = asked(options.destination, options.destinationEgress, options.destinationIngress);
  const labelNames = [...(hasSource ? ['source'] : []), ...(hasDestination ? ['destination'] : []), ...options.labels];
  if (labelNames.length === 0) return { labelNames, key: () => noContext, labels: () => ({}) };

  const pick = (
    flow: CountedFlow,
    base: readonly ContextName[],
    egress: readonly ContextName[],
    ingress: readonly ContextName[],
  ) => {
    const own =
      flow.direction === FlowDirection.egress ? egress : flow.direction === FlowDirection.ingress ? ingress : [];
    return own.length > 0 ? own : base;
  };
  function firstText(contexts: readonly ContextName[], end: FlowEnd, names: readonly string[]): string {
    for (const context of contexts) {
      const text = contextText(end, names, context);
      if (text !== '') return text;
    }
    return '';
  }
  function values(flow: CountedFlow): string[] {
    const list: string[] = [];
    if (hasSource)
      list.push(
        firstText(
          pick(flow, options.source, options.sourceEgress, options.sourceIngress),
          flow.source,
          flow.reply ? flow.names : [],
        ),
      );
    if (hasDestination)
      list.push(
        firstText(
          pick(flow, options.destination, options.destinationEgress, options.destinationIngress),
          flow.destination,
          flow.reply ? [] : flow.names,
        ),
      );
    for (const label of options.labels) list.push(labelText(label, flow.source, flow.destination, flow.direction));
    return list;
  }
  return {
    labelNames,
    key: (flow) => values(flow).join('\u0001'),
    labels: (flow) => {
      const list = values(flow);
      return Object.fromEntries(labelNames.map((name, i) => [name, list[i]!]));
    },
  };
}

/** Where a flow was seen, as the ecosystem calls it. */
function subtypeOf(flow: CountedFlow): keyof typeof subtypeNumbers {
  if (flow.dns !== undefined) return 'DNS';
  if (isDrop(flow)) return '';
  if (flow.direction === FlowDirection.ingress) return 'to-endpoint';
  if (flow.destination.endpointId > 0) return 'from-endpoint';
  return flow.destination.ifindex === 0 ? 'to-host' : 'to-network';
}

/** Reads what is counted of a row that was just added to the ring; `into` is used again for the next. */
export function countedFlow(
  words: Int32Array,
  from: number,
  row: NewRow,
  seq: number,
  into: Writable<CountedFlow>,
): void {
  const at = words.byteOffset + from * 4;
  if (bytesOf !== words.buffer) {
    bytesOf = words.buffer;
    bytes = new Uint8Array(words.buffer);
  }
  const type = bytes[at + EventOffset.type]!;
  const reason = bytes[at + EventOffset.reason]!;
  into.seq = seq;
  into.type = type;
  into.reason = type === EventType.EVENT_DROP || type === EventType.EVENT_END ? reason : 0;
  into.flags = bytes[at + EventOffset.flags]!;
  into.protocol = bytes[at + EventOffset.protocol]!;
  into.direction = row.direction;
  into.reply = row.swapped;
  into.tcpFlags = shownTcpFlags(type, reason, bytes[at + EventOffset.tcpFlags]!, bytes[at + EventOffset.tcpFlags + 1]!);
  into.icmpType = bytes[at + EventOffset.icmpType]!;
  into.source = row.swapped ? row.responder : row.originator;
  into.destination = row.swapped ? row.originator : row.responder;
  into.names = row.names;
  const port = row.swapped ? EventOffset.sport : EventOffset.dport;
  into.destinationPort = (bytes[at + port]! << 8) | bytes[at + port + 1]!;
  into.hasRules = row.egressRules !== undefined || row.ingressRules !== undefined;
  into.tcp = row.tcp;
  into.dns = row.dns;
}

let bytesOf: ArrayBufferLike | undefined;
let bytes: Uint8Array = new Uint8Array(0);
type Writable<T> = { -readonly [K in keyof T]: T[K] };
