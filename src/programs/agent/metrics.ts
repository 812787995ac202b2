// What the agent tells Prometheus: flows under the ecosystem's names, and how it is doing itself under its own.
import { randomBytes } from 'node:crypto';
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import { counterName, datapathMaps, dropReasons } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { PrometheusMetric } from '../../observe/export/otlp-sink.ts';
import { flowUuid } from '../../observe/flows/flow-message.ts';
import type { FlowStatus } from '../../observe/flows/flow-observer.ts';
import type { NewRow } from '../../observe/flows/flow-ring.ts';
import { createConnectionMetrics } from '../../observe/metrics/connection-metrics.ts';
import { type CountedFlow, countedFlow, createFlowMetrics } from '../../observe/metrics/flow-metrics.ts';
import { parseMetric } from '../../observe/metrics/metric-options.ts';
import { metricsIn } from '../../observe/metrics/registered.ts';
import { version } from '../cli/version.ts';
import type { Log } from '../log.ts';
import { offerMetrics } from '../offer-metrics.ts';
import type { Agent } from './agent.ts';
import type { AgentProcesses } from './processes.ts';

/** The agent's metrics. */
export interface AgentMetrics {
  /** Of FlowContext: exemplars name flows by it. */
  readonly run: string;
  readonly onRow: (words: Int32Array, from: number, row: NewRow, seq: number) => void;
  /** The container runtime was answered. */
  readonly onCni: (command: string, result: 'ok' | 'error', seconds: number) => void;
  /** Flows have begun: their counters are shown from now on. */
  show(status: () => FlowStatus): void;
  /** All metrics as they are now, for who does not come for them. */
  readonly all: () => Promise<readonly PrometheusMetric[]>;
  /** Where they are served; undefined when they are not. */
  readonly address: string | undefined;
  close(): Promise<void>;
}

/** Starts counting and serving. Metrics that cannot be served are no reason not to run. */
export async function startMetrics(
  agent: Agent,
  processes: AgentProcesses | undefined,
  log: Log,
): Promise<AgentMetrics> {
  const { settings } = agent;
  const run = randomBytes(8).toString('hex');
  let status: (() => FlowStatus) | undefined;
  const { registry, flows, connections, onCni } = agentRegistry(agent, processes, run, () => status?.());
  const flow = {} as { -readonly [K in keyof CountedFlow]: CountedFlow[K] };

  const server = await offerMetrics(settings.metricsListen, registry, log);
  return {
    run,
    onCni,
    onRow(words, from, row, seq) {
      countedFlow(words, from, row, seq, flow);
      flows.count(flow);
      connections(flow);
    },
    show(from) {
      status = from;
    },
    all: async () => (await registry.getMetricsAsJSON()) as unknown as readonly PrometheusMetric[],
    address: server?.address,
    close: async () => server?.close(),
  };
}

/** All that the agent can say, and what is to be told of flows. */
export function agentRegistry(
  agent: Agent,
  processes: AgentProcesses | undefined,
  run: string,
  status: () => FlowStatus | undefined,
) {
  // Exemplars are for registries of this kind; what is served is written as it is asked for.
  const registry = new Registry();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as never);
  const flows = createFlowMetrics(agent.settings.metrics.map(parseMetric), agent.settings.metricsSeries);
  const connections = createConnectionMetrics(registry, (seq) => flowUuid(run, seq));

  for (const counted of flows.counters)
    new Counter({
      name: counted.name,
      help: counted.help,
      labelNames: [...counted.labelNames],
      registers: [registry],
      enableExemplars: true,
      collect() {
        this.reset();
        for (const { value, labels, lastSeq } of counted.cells())
          this.inc({ labels, value, exemplarLabels: { flow: flowUuid(run, lastSeq) } });
      },
    });
  new Counter({
    name: 'weir_metrics_series_refused_total',
    help: 'Flows that found no room for another row of a metric: raise --metrics-series, or ask for fewer labels.',
    labelNames: ['metric'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { name, refused } of flows.counters) this.inc({ metric: name }, refused);
    },
  });
  const onCni = registerAgent(registry, agent, processes, status);
  return { registry, flows, connections, onCni };
}

function registerAgent(
  registry: Registry,
  agent: Agent,
  processes: AgentProcesses | undefined,
  flowStatus: () => FlowStatus | undefined,
): AgentMetrics['onCni'] {
  const { datapath, sources, endpoints } = agent;
  const { gauge, gauges, counters: counterTable } = metricsIn(registry);
  collectDefaultMetrics({ register: registry, prefix: 'weir_agent_' });

  gauges('weir_build_info', 'The version that runs.', ['version', 'node'], () => [
    [{ version, node: agent.settings.nodeName }, 1],
  ]);
  gauge('weir_endpoints', 'Pods of this node.', () => endpoints.size);
  gauge('weir_identities', 'Identities that this node knows.', () => sources.identities.size);
  gauge('weir_policies', 'Policies that this node knows.', () => agent.policies.objects.size);
  gauge('weir_nodes', 'Nodes that this node knows.', () => sources.nodes.size);
  gauges('weir_api_watch_connected', 'Whether a kind of object is followed.', ['resource'], () =>
    [...sources.watches(), ...agent.policies.watches()].map((each) => [
      { resource: each.resource },
      each.connected ? 1 : 0,
    ]),
  );
  gauges('weir_reconciler_rows', 'Rows by how far they have come.', ['reconciler', 'state'], () =>
    agent.reconcilers.flatMap((each) =>
      Object.entries(each.statusCounts()).map(([state, count]) => [{ reconciler: each.name, state }, count] as const),
    ),
  );
  gauges('weir_map_entries', 'Rows that the agent keeps in a map.', ['map'], () =>
    agent.writerStatus().map((each) => [{ map: each.name }, each.rows]),
  );
  gauges('weir_map_capacity', 'Rows that a map has room for.', ['map'], () =>
    agent.writerStatus().map((each) => [{ map: each.name }, each.capacity]),
  );
  gauges('weir_map_pressure', 'Rows divided by room, 0 to 1.', ['map'], () =>
    agent.writerStatus().map((each) => [{ map: each.name }, each.rows / each.capacity]),
  );
  gauges('weir_map_rows_failing', 'Rows that could not be written.', ['map'], () =>
    agent.writerStatus().map((each) => [{ map: each.name }, each.failing.length]),
  );
  gauges('weir_ipam_addresses', 'Addresses for pods, used and in all.', ['cidr', 'state'], () =>
    agent.pools.pools().flatMap((pool) => {
      const { cidr, used, capacity } = pool.usage();
      return [[{ cidr, state: 'used' }, used] as const, [{ cidr, state: 'capacity' }, capacity] as const];
    }),
  );
  const counters = typedMap(datapath.map('counters'), datapathMaps.counters);
  counterTable('weir_datapath_events_total', 'What the datapath counts.', ['event'], () =>
    counters.entriesPerCpu().flatMap(({ key, values }) => {
      const name = counterName[key];
      if (name === undefined || name === 'COUNTER_MAX') return [];
      return [
        [
          { event: name.replace('COUNTER_', '').toLowerCase() },
          Number(values.reduce((sum, each) => sum + each, 0n)),
        ] as const,
      ];
    }),
  );
  const drops = typedMap(datapath.map('drops'), datapathMaps.drops);
  const dropTable = (of: 'packets' | 'bytes') => () =>
    drops.entriesPerCpu().flatMap(({ key, values }) => {
      const total = Number(values.reduce((sum, each) => sum + each[of], 0n));
      const reason = dropReasons.find((each) => each.number === key)?.name ?? String(key);
      return total === 0 ? [] : [[{ reason }, total] as const];
    });
  counterTable(
    'weir_dropped_packets_total',
    'Packets that were dropped, reported or not.',
    ['reason'],
    dropTable('packets'),
  );
  counterTable('weir_dropped_bytes_total', 'Bytes of packets that were dropped.', ['reason'], dropTable('bytes'));
  counterTable('hubble_lost_events_total', 'Events that were lost, by where.', ['source'], () => {
    const flows = flowStatus();
    return [
      [{ source: 'perf_event_ring_buffer' }, flows?.lostInKernel ?? 0],
      [{ source: 'observer_events_queue' }, flows?.heldBack ?? 0],
      [{ source: 'hubble_ring_buffer' }, flows?.overtaken ?? 0],
    ];
  });
  const exporters = () => agent.exports?.status() ?? [];
  counterTable(
    'weir_export_events_total',
    'Events of an exporter by what became of them: left out, counted in aggregates, sent, refused, told to be lost, lost here.',
    ['exporter', 'result'],
    () =>
      exporters().flatMap(({ name, filtered, aggregated, sent, refused, told, lost }) =>
        Object.entries({ filtered, aggregated, sent, refused, told, lost }).map(
          ([result, count]) => [{ exporter: name, result }, count] as const,
        ),
      ),
  );
  counterTable('weir_export_offered_events_total', 'Events that came to an exporter.', ['exporter'], () =>
    exporters().map((each) => [{ exporter: each.name }, each.offered]),
  );
  gauges('weir_export_queue_events', 'Events that wait on disk, or are being sent.', ['exporter'], () =>
    exporters().map((each) => [{ exporter: each.name }, each.queue.events]),
  );
  counterTable('weir_export_retries_total', 'Batches that had to be sent again.', ['exporter'], () =>
    exporters().map((each) => [{ exporter: each.name }, each.retries]),
  );
  gauges('weir_export_queue_bytes', 'Bytes of events that wait on disk.', ['exporter'], () =>
    exporters().map((each) => [{ exporter: each.name }, each.queue.bytes]),
  );
  gauges('weir_export_lag_seconds', 'Age of the oldest event that has not arrived.', ['exporter'], () =>
    exporters().map((each) => [{ exporter: each.name }, each.lagSeconds]),
  );
  gauge('weir_flows_in_memory', 'Flows that can be asked for.', () => flowStatus()?.flows ?? 0);
  gauge(
    'weir_flow_backlog_bytes',
    'Bytes of events that wait in the kernel’s ring.',
    () => flowStatus()?.backlogBytes ?? 0,
  );
  if (processes !== undefined) {
    gauge('weir_processes', 'Processes that run on this node.', () => processes.status().running);
    counterTable('weir_process_events_total', 'What processes did, and what of it was lost.', ['event'], () => {
      const { execs, exits, lost, unknown, malformed } = processes.status();
      return Object.entries({ execs, exits, lost, unknown, malformed }).map(
        ([event, count]) => [{ event }, count] as const,
      );
    });
  }
  const cni = new Histogram({
    name: 'weir_cni_seconds',
    help: 'How long the container runtime waited.',
    labelNames: ['command', 'result'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [registry],
  });
  return (command, result, seconds) => cni.observe({ command, result }, seconds);
}
