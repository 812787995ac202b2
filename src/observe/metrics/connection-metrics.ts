// What TCP and DNS measured, as histograms, and how connections ended.
import { Counter, Histogram, type Registry } from 'prom-client';
import { EndCause, EventType } from '../../kernel/datapath.gen.ts';
import type { CountedFlow } from './flow-metrics.ts';

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
  const registers = [registry];
  const handshake = new Histogram({
    name: 'weir_tcp_handshake_seconds',
    help: 'From the SYN of a process on this node to the established connection.',
    buckets: seconds,
    registers,
    enableExemplars: true,
  });
  const rtt = new Histogram({
    name: 'weir_tcp_rtt_seconds',
    help: 'The smoothed round trip of connections when they ended.',
    buckets: seconds,
    registers,
    enableExemplars: true,
  });
  const retransmits = new Counter({
    name: 'weir_tcp_retransmits_total',
    help: 'Segments that connections sent again, as known when they ended.',
    registers,
  });
  const ends = new Counter({
    name: 'weir_tcp_connections_ended_total',
    help: 'Connections of TCP by how they ended.',
    labelNames: ['cause'],
    registers,
  });
  const dns = new Histogram({
    name: 'weir_dns_latency_seconds',
    help: 'From questions of this node’s pods to the answers.',
    buckets: seconds,
    registers,
    enableExemplars: true,
  });
  return (flow) => {
    const { details } = flow;
    if (details?.dns?.latencyNs)
      dns.observe({ value: details.dns.latencyNs / 1e9, exemplarLabels: { flow: uuid(flow.seq) } });
    if (flow.type !== EventType.EVENT_END || flow.protocol !== 6) return;
    ends.inc({ cause: causes[flow.reason] ?? 'unknown' });
    if (details?.tcp === undefined) return;
    const exemplarLabels = { flow: uuid(flow.seq) };
    if (details.tcp.handshakeUs > 0) handshake.observe({ value: details.tcp.handshakeUs / 1e6, exemplarLabels });
    if (details.tcp.rttUs > 0) rtt.observe({ value: details.tcp.rttUs / 1e6, exemplarLabels });
    if (details.tcp.retransmits > 0) retransmits.inc(details.tcp.retransmits);
  };
}
