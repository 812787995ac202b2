// What `weir status` shows: how the agent is doing and what is wrong, problems first.
import { overText } from '../../connect/datapath/datapath-writer.ts';
import { counterName, datapathMaps } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { version } from '../cli/version.ts';
import type { Agent } from './agent.ts';
import { policyRoom } from './policy-room.ts';

/** What `/v1/health` answers. */
export interface HealthView {
  readonly node: string;
  readonly healthy: boolean;
  readonly problems: readonly string[];
}

/** What `/v1/status` answers. */
export type StatusView = ReturnType<typeof statusOf>;

const unfinishedShown = 20;

/** Everything that is wrong now, a line each. Cheap: no map is read for it. */
function problemsOf(agent: Agent): string[] {
  const lost = [...agent.sources.watches(), ...agent.policies.watches()].filter((watch) => !watch.connected);
  const { waiting, closed, unplaced, over } = agent.policyRows();
  return [
    ...lost.map((watch) => `not following ${watch.resource}: ${watch.error ?? 'not connected yet'}`),
    ...agent
      .writerStatus()
      .filter((map) => map.failing.length > 0)
      .map((map) => `${map.failing.length} rows of map ${map.name} cannot be written: ${map.failing[0]!.error}`),
    ...over.map(overText),
    ...(waiting + unplaced === 0
      ? []
      : [
          `there is no room for ${waiting} rows of policy and ${unplaced} addresses and blocks: they are tried again` +
            (closed.length === 0 ? '' : `, and ${closed.length} directions of pods are closed meanwhile`),
        ]),
    ...agent.reconcilers.flatMap((each) => {
      const { error } = each.statusCounts();
      if (error === 0) return [];
      return [`${error} ${each.name} cannot be written: ${each.unfinished().find((row) => row.error)?.error ?? ''}`];
    }),
    ...(agent.sync.error === undefined
      ? []
      : [`policy and addresses are not brought up to date, and all of it is tried again: ${agent.sync.error}`]),
    ...(agent.sync.synced ? [] : ['the first complete state has not been read yet']),
    ...agent.pools.pools().flatMap((pool) => {
      const usage = pool.usage();
      return usage.used >= usage.capacity ? [`IPAM_EXHAUSTED: no address is left in ${usage.cidr}`] : [];
    }),
  ];
}

/** The short answer. */
export function healthOf(agent: Agent): HealthView {
  const problems = problemsOf(agent);
  return { node: agent.settings.nodeName, healthy: problems.length === 0, problems };
}

/** The long answer. */
export function statusOf(agent: Agent) {
  const { datapath } = agent;
  const watches = [...agent.sources.watches(), ...agent.policies.watches()];
  const labelsOf = (identity: number) => agent.sources.identities.get(identity)?.labels ?? [`identity ${identity}`];
  return {
    version,
    ...healthOf(agent),
    startedAt: new Date(agent.startedAtMs).toISOString(),
    uptimeSeconds: Math.round((Date.now() - agent.startedAtMs) / 1000),
    memoryBytes: process.memoryUsage().rss,
    apiServer: { server: agent.client.server, connected: watches.every((watch) => watch.connected), watches },
    sync: { synced: agent.sync.synced, passes: agent.sync.passes, lastMs: agent.sync.lastMs },
    tables: agent.tables.map((table) => ({
      name: table.name,
      rows: table.size,
      revision: table.revision,
      initialized: table.initialized,
    })),
    reconcilers: agent.reconcilers.map((each) => ({
      name: each.name,
      ...each.statusCounts(),
      unfinished: each.unfinished().slice(0, unfinishedShown),
      pruned: each.pruned(),
    })),
    /** Pods of other nodes that are ignored: their addresses are outside the blocks of the node that tells of them. */
    refusedPods: {
      count: agent.sources.refused.size,
      examples: [...agent.sources.refused.values()].slice(0, unfinishedShown),
    },
    maps: agent.writerStatus(),
    /** Worth a look, while the node does its work: maps of policy that are nearly full, exporters that do not get through. */
    warnings: [...policyRoom(agent.writerStatus(), agent.compiler, labelsOf), ...(agent.exports?.problems() ?? [])],
    programs: datapath.programs(),
    attachments: datapath.attachments.list(),
    counters: counterValues(agent),
    exporters: agent.exports?.status() ?? [],
    ipam: { pools: agent.pools.pools().map((pool) => pool.usage()), leaks: agent.pools.leaks() },
  };
}

function counterValues(agent: Agent): Record<string, number> {
  const values: Record<string, number> = {};
  for (const { key, values: perCpu } of typedMap(
    agent.datapath.map('counters'),
    datapathMaps.counters,
  ).entriesPerCpu()) {
    const name = counterName[key];
    if (name !== undefined && name !== 'COUNTER_MAX')
      values[name.replace('COUNTER_', '').toLowerCase()] = Number(perCpu.reduce((sum, each) => sum + each, 0n));
  }
  return values;
}
