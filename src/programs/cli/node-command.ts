// `weir node`: the nodes of the cluster and how their agents are.
import type { Command } from 'commander';
import type { NodeRow } from '../../core/rows.ts';
import type { StatusView } from '../agent/status-view.ts';
import { nodeCleanupCommand } from './node-cleanup-command.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

interface NodeView extends NodeRow {
  /** `unknown`: the context names no socket of this node, so its agent was not asked. */
  readonly agent: 'healthy' | 'unhealthy' | 'unreachable' | 'unknown';
  readonly version?: string;
  readonly pods?: number;
  readonly uptimeSeconds?: number;
  readonly problems: readonly string[];
}

/** `node list`. */
export function nodeCommand(): Command {
  const list = queryCommand('list', 'List nodes: addresses, blocks of pod addresses, pods, and how the agent is.', [
    'weir node list',
    'weir node list --wide   # with version and uptime of the agents',
    "weir node list -o json | jq '.[].podCidrs'",
  ]).action(listNodes);
  return groupCommand(
    'node',
    'Nodes of the cluster.',
    [list, nodeCleanupCommand()],
    [
      'weir node list           # nodes, their addresses and blocks of pod addresses',
      'weir node list -o json   # the same for programs',
      'weir node cleanup        # on a node: take everything of Weir off it',
    ],
  );
}

async function listNodes(options: QueryOptions): Promise<void> {
  const { askEach, askNodes } = await import('./ask-nodes.ts');
  const { durationText } = await import('./display-units.ts');
  const statuses = await askEach<StatusView>(options, '/v1/status');
  const answering = statuses.filter((each) => !('error' in each));
  const rows = new Map<string, NodeView>();
  // The line about a node that does not answer has been said already: its neighbours know the rest.
  const target = answering[0] && (options.socket === undefined ? { ...options, node: answering[0].node } : options);
  for (const { value } of target === undefined ? [] : await askNodes<NodeRow[]>(target, '/v1/nodes'))
    for (const row of value ?? []) rows.set(row.name, { ...row, agent: 'unknown', problems: [] });
  for (const each of statuses) {
    const row = rows.get(each.node) ?? { name: each.node, addresses: [], podCidrs: [], clusterPools: [], problems: [] };
    if ('error' in each) rows.set(each.node, { ...row, agent: 'unreachable', problems: [each.error.message] });
    else if (each.value !== undefined) {
      const { healthy, problems, version, uptimeSeconds, tables } = each.value;
      const pods = tables.find((table) => table.name === 'endpoints')?.rows;
      const agent = healthy ? 'healthy' : 'unhealthy';
      rows.set(each.node, { ...row, agent, version, uptimeSeconds, pods, problems });
    }
  }
  const columns: Column<NodeView>[] = [
    { title: 'NODE', value: (row) => row.name, shrinkTo: 8 },
    { title: 'AGENT', value: (row) => row.agent },
    { title: 'PODS', value: (row) => row.pods, alignRight: true },
    { title: 'ADDRESSES', value: (row) => row.addresses.join(','), shrinkTo: 12 },
    { title: 'POD CIDRS', value: (row) => row.podCidrs.join(','), shrinkTo: 14 },
    { title: 'VERSION', value: (row) => row.version, wide: true },
    { title: 'UP', value: (row) => row.uptimeSeconds && durationText(row.uptimeSeconds), wide: true },
    { title: 'PROBLEM', value: (row) => row.problems[0], wide: true },
  ];
  const sorted = [...rows.values()].sort((a, b) => a.name.localeCompare(b.name));
  await printRows(columns, sorted, options, 'No nodes.');
}
