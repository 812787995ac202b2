// What the local API answers. Shapes are for `weir ... -o json`, so names are stable and units are in them.
import { reservedIdentityRows } from '../../core/identity.ts';
import { counterName, datapathMaps, dropReasons } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { version } from '../cli/version.ts';
import type { Agent } from './agent.ts';
import { conntrackEntries } from './conntrack-entries.ts';
import type { ApiHandler } from './local-api.ts';

/** GET handlers by path. */
export function apiRoutes(agent: Agent): Record<string, ApiHandler> {
  const { datapath, compiler, endpoints, sources, addresses } = agent;
  const counters = typedMap(datapath.map('counters'), datapathMaps.counters);
  const drops = typedMap(datapath.map('drops'), datapathMaps.drops);

  function counterValues(): Record<string, number> {
    const values: Record<string, number> = {};
    for (const { key, values: perCpu } of counters.entriesPerCpu()) {
      const name = counterName[key];
      if (name !== undefined && name !== 'COUNTER_MAX')
        values[name.replace('COUNTER_', '').toLowerCase()] = Number(perCpu.reduce((sum, each) => sum + each, 0n));
    }
    return values;
  }

  function status() {
    const watches = sources.watches();
    const lost = watches.filter((watch) => !watch.connected);
    const maps = agent.writerStatus();
    const reconcilers = agent.reconcilers.map((each) => ({
      name: each.name,
      ...each.statusCounts(),
      unfinished: each.unfinished().slice(0, 20),
      pruned: each.pruned(),
    }));
    const problems = [
      ...lost.map((watch) => `not following ${watch.resource}: ${watch.error ?? 'not connected yet'}`),
      ...maps
        .filter((map) => map.failing.length > 0)
        .map((map) => `${map.failing.length} rows of map ${map.name} cannot be written: ${map.failing[0]!.error}`),
      ...reconcilers
        .filter((each) => each.error > 0)
        .map(
          (each) =>
            `${each.error} ${each.name} cannot be written: ${each.unfinished.find((row) => row.error)?.error ?? ''}`,
        ),
      ...(agent.sync.synced ? [] : ['the first complete state has not been read yet']),
      ...agent.pools.pools().flatMap((pool) => {
        const usage = pool.usage();
        return usage.used >= usage.capacity ? [`IPAM_EXHAUSTED: no address is left in ${usage.cidr}`] : [];
      }),
    ];
    return {
      version,
      node: agent.settings.nodeName,
      healthy: problems.length === 0,
      problems,
      startedAt: new Date(agent.startedAtMs).toISOString(),
      uptimeSeconds: Math.round((Date.now() - agent.startedAtMs) / 1000),
      memoryBytes: process.memoryUsage().rss,
      apiServer: { server: agent.client.server, connected: lost.length === 0, watches },
      sync: { synced: agent.sync.synced, passes: agent.sync.passes, lastMs: agent.sync.lastMs },
      tables: agent.tables.map((table) => ({
        name: table.name,
        rows: table.size,
        revision: table.revision,
        initialized: table.initialized,
      })),
      reconcilers,
      maps,
      programs: datapath.programs(),
      attachments: datapath.attachments.list(),
      counters: counterValues(),
      ipam: { pools: agent.pools.pools().map((pool) => pool.usage()), leaks: agent.pools.leaks() },
    };
  }

  return {
    '/v1/health': () => {
      const { healthy, problems } = status();
      return { healthy, problems };
    },
    '/v1/status': status,
    '/v1/endpoints': () => [...endpoints.rows()].map(endpointView),
    '/v1/endpoints/': (_, id) => {
      const row = /^\d+$/.test(id) ? endpoints.get(Number(id)) : endpoints.by('pod', id)[0];
      return row && { ...endpointView(row), policy: policyOf(row) };
    },
    '/v1/identities': () => [...reservedIdentityRows(), ...sources.identities.rows()].sort((a, b) => a.id - b.id),
    '/v1/policies': () => [...sources.policies.rows()],
    '/v1/nodes': () => [...sources.nodes.rows()],
    '/v1/addresses': () =>
      [...compiler.ipcache()].map((row) => ({ ...row, ...addressView(row.address), labels: labelsOf(row.identity) })),
    '/v1/conntrack': (query) => conntrackEntries(datapath, { limit: Number(query.get('limit') ?? 1000) }),
    '/v1/drops': () =>
      drops
        .entriesPerCpu()
        .map(({ key, values }) => ({
          number: key,
          packets: Number(values.reduce((sum, each) => sum + each.packets, 0n)),
          bytes: Number(values.reduce((sum, each) => sum + each.bytes, 0n)),
        }))
        .filter((row) => row.packets > 0)
        .map((row) => {
          const reason = dropReasons.find((each) => each.number === row.number);
          return {
            reason: reason?.name ?? String(row.number),
            ...row,
            meaning: reason?.meaning ?? 'unknown',
            action: reason?.action ?? '',
          };
        })
        .sort((a, b) => b.packets - a.packets),
  };

  function endpointView(row: NonNullable<ReturnType<typeof endpoints.get>>) {
    return { ...row, node: agent.settings.nodeName, identityLabels: labelsOf(row.identity) };
  }

  function labelsOf(identity: number): readonly string[] {
    return (
      sources.identities.get(identity)?.labels ??
      reservedIdentityRows().find((row) => row.id === identity)?.labels ??
      []
    );
  }

  function addressView(address: string) {
    const row = addresses.get(address);
    return row === undefined ? {} : { kind: row.kind, namespace: row.namespace, pod: row.pod, node: row.node };
  }

  /** The compiled rows of an endpoint's class, with what their cookies stand for. */
  function policyOf(row: { ipv4?: string; ipv6?: string }) {
    const own = [...compiler.ipcache()].filter((each) => each.address === row.ipv4 || each.address === row.ipv6);
    const classes = new Set(own.map((each) => each.class));
    const byRuleset = Map.groupBy(compiler.ports(), (port) => port.ruleset);
    return [...compiler.peers()]
      .filter((peer) => classes.has(peer.subject))
      .map((peer) => ({
        ...peer,
        ports: (byRuleset.get(peer.ruleset) ?? []).map((port) => ({
          ...port,
          rules: compiler.cookie(port.cookie)?.rules ?? [],
        })),
      }));
  }
}
