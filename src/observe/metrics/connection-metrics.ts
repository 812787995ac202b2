// What TCP and DNS measured, as histograms, and how connections ended.
import type { Registry } from 'prom-client';
import { EndCause, EventType } from '../../kernel/datapath.gen.ts';
import { createCountedHistogram } from './counted-histogram.ts';
import type { CountedFlow } from './flow-metrics.ts';
import { metricsIn } from './registered.ts';

/** Seconds, from what stays in a machine to what crosses an ocean and is lost once. */
const seconds = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3];

const causes: Readonly<Record<number, string>> = {
  [EndCause.END_CLOSED]: 'closed',
  [EndCause.END_RESET]: 'reset',
  [EndCause.END_EXPIRED]: 'expired',
  [EndCause.END_REOPENED]: 'reopened',
};

/** Makes the metrics; the answer takes every flow. `uuid` names one, for exemplars. */
export function createConnectionMetrics(
  registry: Registry,
  uuid: (seq: number) => string,
): (flow: CountedFlow) => void {
  const histogram = (name: string, help: string) => {
    const made = createCountedHistogram({ name, help, buckets: seconds, uuid });
    registry.registerMetric(made.metric);
    return made;
  };
  const { counter, counters } = metricsIn(registry);
  const handshake = histogram(
    'weir_tcp_handshake_seconds',
    'From the SYN of a process on this node to the established connection.',
  );
  const rtt = histogram('weir_tcp_rtt_seconds', 'The smoothed round trip of connections when they ended.');
  let retransmits = 0;
  counter(
    'weir_tcp_retransmits_total',
    'Segments that connections sent again, as known when they ended.',
    () => retransmits,
  );
  const ends = new Map<number, number>();
  counters('weir_tcp_connections_ended_total', 'Connections of TCP by how they ended.', ['cause'], () =>
    [...ends].map(([reason, count]) => [{ cause: causes[reason] ?? 'unknown' }, count] as const),
  );
  const dnsLatency = histogram('weir_dns_latency_seconds', 'From questions of this node’s pods to the answers.');
  return ({ seq, type, protocol, reason, tcp, dns }) => {
    if (dns !== undefined && dns.latencyNs > 0) dnsLatency.observe(dns.latencyNs / 1e9, seq);
    if (type !== EventType.EVENT_END || protocol !== 6) return;
    ends.set(reason, (ends.get(reason) ?? 0) + 1);
    if (tcp === undefined) return;
    if (tcp.handshakeUs > 0) handshake.observe(tcp.handshakeUs / 1e6, seq);
    if (tcp.rttUs > 0) rtt.observe(tcp.rttUs / 1e6, seq);
    retransmits += tcp.retransmits;
  };
}
