// What the relay tells Prometheus: its nodes, its clients, and how much goes through it.
import { collectDefaultMetrics, Registry } from 'prom-client';
import { metricsIn } from '../../observe/metrics/registered.ts';
import type { RelayCounts } from '../../observe/relay/merge-nodes.ts';
import type { PeerPool } from '../../observe/relay/peer-pool.ts';
import type { RpcServer } from '../../observe/rpc/serve-rpc.ts';
import { version } from '../cli/version.ts';

/** The registry. `servers` are those that listen already. */
export function relayRegistry(
  pool: Pick<PeerPool, 'nodes'>,
  { flows, processes }: { readonly flows: RelayCounts; readonly processes: RelayCounts },
  servers: readonly Pick<RpcServer, 'connections' | 'calls' | 'refused'>[],
): Registry {
  const registry = new Registry();
  const { gauge, gauges, counter, counters } = metricsIn(registry);
  collectDefaultMetrics({ register: registry, prefix: 'weir_relay_' });
  const sum = (of: (server: (typeof servers)[number]) => number) => () =>
    servers.reduce((all, each) => all + of(each), 0);
  gauges('weir_relay_build_info', 'The version that runs.', ['version'], () => [[{ version }, 1]]);
  gauges('weir_relay_nodes', 'Nodes by how the relay reaches them.', ['state'], () => {
    const links = pool.nodes();
    return (['connecting', 'connected', 'unavailable'] as const).map(
      (state) => [{ state }, links.filter((link) => link.state === state).length] as const,
    );
  });
  gauge(
    'weir_relay_clients',
    'Connections of clients.',
    sum((server) => server.connections),
  );
  gauge(
    'weir_relay_calls',
    'Calls that are being answered.',
    sum((server) => server.calls),
  );
  counters('weir_relay_refused_total', 'What was over a limit and refused.', ['what'], () => [
    [{ what: 'connections' }, sum((server) => server.refused.connections)()],
    [{ what: 'calls' }, sum((server) => server.refused.calls)()],
  ]);
  counter('weir_relay_flows_received_total', 'Flows of nodes, for each call that reads them.', () => flows.received);
  counter('weir_relay_flows_sent_total', 'Flows that were handed on to clients.', () => flows.sent);
  counter('weir_relay_flows_late_total', 'Flows that came too late for their place in a stream.', () => flows.late);
  counter(
    'weir_relay_lost_events_total',
    'Events that nodes said they had lost, as they were handed on.',
    () => flows.lost,
  );
  counters(
    'weir_relay_process_events_total',
    'Events of processes: received of nodes for each call that reads them, sent on, of these late, and told to be lost.',
    ['event'],
    () => Object.entries(processes).map(([event, count]) => [{ event }, count] as const),
  );
  return registry;
}
