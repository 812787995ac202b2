// Words that several formats use for what rows have as numbers.
import { Verdict } from '../../../proto/gen/flow/flow_pb.js';

const transports: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp', 1: 'icmp', 58: 'ipv6-icmp' };

/** Such as `tcp`; the number of a protocol without a common name. */
export function transportName(protocol: number): string {
  return transports[protocol] ?? String(protocol);
}

/** Such as `FORWARDED`. */
export function verdictText(verdict: Verdict): string {
  return Verdict[verdict] ?? String(verdict);
}
