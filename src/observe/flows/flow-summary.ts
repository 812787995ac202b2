// The line of a flow that people read: its flags or message, and for reports what went over the connection.
import { Verdict } from '../../../proto/gen/flow/flow_pb.js';
import { EndCause, EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import type { FlowRow } from './flow-row.ts';
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

/** How a connection ended, in a word. */
export const endCauseText: Readonly<Record<number, string>> = {
  [EndCause.END_CLOSED]: 'closed',
  [EndCause.END_RESET]: 'reset',
  [EndCause.END_EXPIRED]: 'expired',
  [EndCause.END_REOPENED]: 'reopened',
};

/** Such as `TCP Flags: SYN`, or `TCP Flags: FIN, ACK; closed after 1.2 s; sent 12 packets, 840 bytes; received …`. */
export function flowSummary(row: FlowRow): string {
  const parts = [transport(row)];
  if (row.type === EventType.EVENT_ACTIVE || row.type === EventType.EVENT_END) {
    const seconds = `${(row.durationNs / 1e9).toFixed(row.durationNs < 1e10 ? 3 : 0)} s`;
    parts.push(
      row.type === EventType.EVENT_END
        ? `${endCauseText[row.reason] ?? 'ended'} after ${seconds}`
        : `open for ${seconds}`,
    );
    parts.push(
      `sent ${row.packets[0]} packets, ${row.bytes[0]} bytes`,
      `received ${row.packets[1]} packets, ${row.bytes[1]} bytes`,
    );
  }
  const staged = stagedDenials(row.flags);
  if (staged.length > 0) parts.push(`staged policies would deny ${staged.join(' and ')}`);
  const audited = auditedDenials(row.flags);
  if (audited.length > 0) parts.push(`the host firewall would deny ${audited.join(' and ')}`);
  if (row.suppressed > 0) parts.push(`${row.suppressed} like it not reported`);
  return parts.join('; ');
}

/** The directions in which policies in dry run would have denied. */
export function stagedDenials(flags: number): ('egress' | 'ingress')[] {
  return [
    ...((flags & EventFlags.EVENT_STAGED_EGRESS_DENY) !== 0 ? (['egress'] as const) : []),
    ...((flags & EventFlags.EVENT_STAGED_INGRESS_DENY) !== 0 ? (['ingress'] as const) : []),
  ];
}

/** The directions in which policies for nodes deny what only the firewall's mode let through. */
function auditedDenials(flags: number): ('egress' | 'ingress')[] {
  return [
    ...((flags & EventFlags.EVENT_AUDITED_EGRESS) !== 0 ? (['egress'] as const) : []),
    ...((flags & EventFlags.EVENT_AUDITED_INGRESS) !== 0 ? (['ingress'] as const) : []),
  ];
}

/** The contract's number for what became of a packet. */
export function verdictOf(row: Pick<FlowRow, 'type' | 'flags'>): Verdict {
  if (row.type === EventType.EVENT_DROP) return Verdict.DROPPED;
  return auditedDenials(row.flags).length > 0 ? Verdict.AUDIT : Verdict.FORWARDED;
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
      return `ICMPv4 ${icmp4[row.icmpType] ?? `${row.icmpType}(${row.icmpCode})`}`;
    case 58:
      return `ICMPv6 ${icmp6[row.icmpType] ?? `${row.icmpType}(${row.icmpCode})`}`;
    default:
      return `IP protocol ${row.protocol}`;
  }
}
