// TCP flags: of a packet for what is new or dropped, of a whole connection for reports on it.
import { EndCause, EventType } from '../../kernel/datapath.gen.ts';

/** The bits of the header, in the order in which people read them. */
export const tcpFlagBits = {
  SYN: 0x02,
  ACK: 0x10,
  FIN: 0x01,
  RST: 0x04,
  PSH: 0x08,
  URG: 0x20,
  ECE: 0x40,
  CWR: 0x80,
} as const;

const { SYN, ACK, FIN, RST } = tcpFlagBits;

/** The contract's field of each flag, and its bit. */
export const tcpFlagFields = (['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const).map(
  (name, i) => [i + 1, tcpFlagBits[name]] as const,
);

/**
 * The flags that a flow shows. A start and a drop have their packet's. A report has what was seen in either direction
 * but not how the connection began; an end has what ended it.
 */
export function shownTcpFlags(type: number, reason: number, sent: number, answered: number): number {
  if (type === EventType.EVENT_ACTIVE) return (sent | answered) & ~(SYN | FIN | RST);
  if (type !== EventType.EVENT_END) return sent;
  if (reason === EndCause.END_CLOSED) return FIN | ACK;
  if (reason === EndCause.END_RESET) return RST;
  return (sent | answered) & ~(SYN | FIN | RST);
}

const texts = Array.from({ length: 256 }, (_, flags) =>
  Object.entries(tcpFlagBits)
    .filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name)
    .join(', '),
);

/** `SYN, ACK`; empty without any. */
export function tcpFlagText(flags: number): string {
  return texts[flags]!;
}
