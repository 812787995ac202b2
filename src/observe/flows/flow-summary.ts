// The line of a flow that people read: its flags or message, and for reports what went over the connection.
import { Verdict } from '../../../proto/gen/flow/flow_pb.js';
import { ClosedBy, EndCause, EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import { rcodeText } from '../dns/parse-dns.ts';
import type { FlowDns, FlowRow } from './flow-row.ts';
import { tcpFlagText } from './tcp-flags.ts';

/** Names of ICMP messages by type. */
const icmp4: Readonly<Record<number, string>> = {
  0: 'EchoReply',
  3: 'DestinationUnreachable',
  5: 'Redirect',
  8: 'EchoRequest',
  11: 'TimeExceeded',
  12: 'ParameterProblem',
};
const icmp6: Readonly<Record<number, string>> = {
  1: 'DestinationUnreachable',
  2: 'PacketTooBig',
  3: 'TimeExceeded',
  4: 'ParameterProblem',
  128: 'EchoRequest',
  129: 'EchoReply',
  133: 'RouterSolicitation',
  134: 'RouterAdvertisement',
  135: 'NeighborSolicitation',
  136: 'NeighborAdvertisement',
};

/** What the codes of messages that refuse say. */
const codes4: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  3: {
    0: 'network',
    1: 'host',
    2: 'protocol',
    3: 'port',
    4: 'fragmentation needed',
    9: 'network prohibited',
    10: 'host prohibited',
    13: 'prohibited',
  },
  11: { 0: 'in transit', 1: 'in reassembly' },
};
const codes6: typeof codes4 = {
  1: { 0: 'no route', 1: 'prohibited', 3: 'address', 4: 'port', 6: 'route rejected' },
  3: { 0: 'in transit', 1: 'in reassembly' },
};

const endCauseText: Readonly<Record<number, string>> = {
  [EndCause.END_CLOSED]: 'closed',
  [EndCause.END_RESET]: 'reset',
  [EndCause.END_EXPIRED]: 'expired',
  [EndCause.END_REOPENED]: 'reopened',
};

/**
 * How a connection ended: closed, reset, expired, reopened; `refused` when the answer to its SYN was a reset, and `no answer`
 * when there was none.
 */
export function endCauseOf(row: FlowRow): string {
  const answered = (row.flags & EventFlags.EVENT_REPLIED) !== 0;
  if (row.protocol === TCP && (row.flags & EventFlags.EVENT_MIDSTREAM) === 0) {
    if (row.reason === EndCause.END_RESET && row.packets[1] === 1 && row.closedBy === ClosedBy.CLOSED_BY_RESPONDER)
      return 'refused';
    if (row.reason === EndCause.END_EXPIRED && !answered) return 'no answer';
  }
  return endCauseText[row.reason] ?? 'unknown';
}

const TCP = 6;
const auditedFlags = EventFlags.EVENT_AUDITED_EGRESS | EventFlags.EVENT_AUDITED_INGRESS;
const unusualFlags = auditedFlags | EventFlags.EVENT_STAGED_EGRESS_DENY | EventFlags.EVENT_STAGED_INGRESS_DENY;

/** Such as `TCP Flags: SYN`, or `TCP Flags: FIN, ACK; closed after 1.2 s; sent 12 packets, 840 bytes; received …`. */
export function flowSummary(row: FlowRow): string {
  if (row.dns !== undefined) return dnsText(row.dns);
  const { type, flags, suppressed } = row;
  let text = transport(row);
  if (type === EventType.EVENT_ACTIVE || type === EventType.EVENT_END) text += `; ${reportText(row)}`;
  if ((flags & unusualFlags) !== 0) {
    const staged = stagedDenials(flags);
    if (staged.length > 0) text += `; staged policies would deny ${staged.join(' and ')}`;
    const audited = auditedDenials(flags);
    if (audited.length > 0) text += `; the host firewall would deny ${audited.join(' and ')}`;
  }
  if (suppressed > 0) text += `; ${suppressed} like it not reported`;
  return text;
}

function reportText(row: FlowRow): string {
  const { durationNs, packets, bytes } = row;
  const seconds = `${(durationNs / 1e9).toFixed(durationNs < 1e10 ? 3 : 0)} s`;
  const became =
    row.type === EventType.EVENT_END ? `${endCauseOf(row)}${closerText(row)} after ${seconds}` : `open for ${seconds}`;
  return `${became}; sent ${packets[0]} packets, ${bytes[0]} bytes; received ${packets[1]} packets, ${bytes[1]} bytes`;
}

function closerText(row: FlowRow): string {
  if (row.closedBy === ClosedBy.CLOSED_BY_NOBODY) return '';
  return row.closedBy === ClosedBy.CLOSED_BY_ORIGINATOR ? ' by the client' : ' by the server';
}

/** `DNS Query www.example.com. AAAA`, `DNS Answer "192.0.2.1" TTL: 30 (Query …)`. */
function dnsText(dns: FlowDns): string {
  const asked = `${dns.query} ${dns.types.join(',')}`;
  if (!dns.response) return `DNS Query ${asked}`;
  const took = dns.latencyNs > 0 ? ` after ${(dns.latencyNs / 1e6).toFixed(1)} ms` : '';
  if (dns.rcode !== 0) return `DNS Answer RCode: ${rcodeText(dns.rcode)}${took} (Query ${asked})`;
  const what = [
    ...(dns.cnames.length > 0 ? [`CNAMEs: "${dns.cnames.join(',')}"`] : []),
    ...(dns.addresses.length > 0 ? [`"${dns.addresses.join(',')}"`] : []),
  ];
  return `DNS Answer ${what.length > 0 ? what.join(' ') : 'without records'} TTL: ${dns.ttl}${took} (Query ${asked})`;
}

/** The directions in which policies in dry run would have denied. */
export function stagedDenials(flags: number): readonly ('egress' | 'ingress')[] {
  return denials(flags & EventFlags.EVENT_STAGED_EGRESS_DENY, flags & EventFlags.EVENT_STAGED_INGRESS_DENY);
}

/** The directions in which policies for nodes deny what only the firewall's mode let through. */
function auditedDenials(flags: number): readonly ('egress' | 'ingress')[] {
  return denials(flags & EventFlags.EVENT_AUDITED_EGRESS, flags & EventFlags.EVENT_AUDITED_INGRESS);
}

function denials(egress: number, ingress: number): readonly ('egress' | 'ingress')[] {
  if ((egress | ingress) === 0) return noDenials;
  return [...(egress === 0 ? [] : (['egress'] as const)), ...(ingress === 0 ? [] : (['ingress'] as const))];
}

const noDenials: readonly ('egress' | 'ingress')[] = [];

/** The contract's number for what became of a packet. */
export function verdictOf(row: Pick<FlowRow, 'type' | 'flags'>): Verdict {
  if (row.type === EventType.EVENT_DROP) return Verdict.DROPPED;
  return (row.flags & auditedFlags) !== 0 ? Verdict.AUDIT : Verdict.FORWARDED;
}

/** Such as `ICMPv4 DestinationUnreachable (fragmentation needed)`. */
function icmpText({ protocol, icmpType, icmpCode }: FlowRow): string {
  const [names, codes, family] = protocol === 1 ? [icmp4, codes4, 'ICMPv4'] : [icmp6, codes6, 'ICMPv6'];
  const code = codes[icmpType]?.[icmpCode];
  return `${family} ${names[icmpType] ?? `${icmpType}(${icmpCode})`}${code === undefined ? '' : ` (${code})`}`;
}

function transport(row: FlowRow): string {
  switch (row.protocol) {
    case 6:
      return row.tcpFlags === 0 ? 'TCP' : `TCP Flags: ${tcpFlagText(row.tcpFlags)}`;
    case 17:
      return 'UDP';
    case 132:
      return 'SCTP';
    case 1:
    case 58:
      return icmpText(row);
    default:
      return `IP protocol ${row.protocol}`;
  }
}
