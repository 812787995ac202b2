// `weir backend`: takes backends out of service and back, on the nodes that are asked.
import type { Command } from 'commander';
import type { MaintenanceRow } from '../agent/maintenance.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** `backend drain`, `activate` and `list`. */
export function backendCommand(): Command {
  const drain = queryCommand('drain', 'Give a backend no new connections; those that it has go on.', [
    'weir backend drain 10.244.1.7:8080               # on all nodes of the context',
    "weir backend drain '[fd00:10:244:1::7]:8080'",
    'weir backend drain 10.244.1.7:8080 --node node1  # only as node1 sees it',
  ])
    .argument('<backend>', 'ADDRESS:PORT of the pod')
    .action((backend: string, options: QueryOptions) => change(backend, 'drained', options));
  const activate = queryCommand('activate', 'Give a drained backend new connections again.', [
    'weir backend activate 10.244.1.7:8080',
  ])
    .argument('<backend>', 'ADDRESS:PORT of the pod')
    .action((backend: string, options: QueryOptions) => change(backend, 'active', options));
  const list = queryCommand('list', 'List the backends that were drained, and where.', [
    'weir backend list',
    'weir backend list -o json',
  ]).action(listDrained);
  return groupCommand(
    'backend',
    'Backends taken out of service by hand. Nodes remember them over restarts.',
    [drain, activate, list],
    [
      'weir backend drain 10.244.1.7:8080      # no new connections',
      'weir backend activate 10.244.1.7:8080   # new connections again',
      'weir backend list                       # what is drained',
    ],
  );
}

interface ChangeRow {
  readonly node: string;
  readonly changed: boolean;
  readonly services: readonly string[];
}

async function change(backend: string, state: 'drained' | 'active', options: QueryOptions): Promise<void> {
  const { WeirError } = await import('../../core/errors.ts');
  const { askNodes } = await import('./ask-nodes.ts');
  const { parseEnd } = await import('./service-why.ts');
  const { address, port } = parseEnd(backend);
  if (port === undefined) throw new WeirError('CONFIG_INVALID', `${backend} has no port`, 'Write ADDRESS:PORT.');
  const query = new URLSearchParams({ address, port, state });
  const answers = await askNodes<Omit<ChangeRow, 'node'>>(options, `/v1/maintenance?${query}`, 'POST');
  const rows = answers.flatMap(({ node, value }): ChangeRow[] => (value === undefined ? [] : [{ node, ...value }]));
  const columns: Column<ChangeRow>[] = [
    { title: 'NODE', value: (row) => row.node },
    { title: 'STATE', value: (row) => (row.changed ? `${state} now` : `${state} already`) },
    { title: 'SERVICES', value: (row) => row.services.join(',') || 'none has this backend', shrinkTo: 20 },
  ];
  await printRows(columns, rows, options, 'No node answered.');
}

async function listDrained(options: QueryOptions): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { durationText } = await import('./display-units.ts');
  const { endpointText } = await import('./service-detail.ts');
  const answers = await askNodes<MaintenanceRow[]>(options, '/v1/maintenance');
  const rows = answers.flatMap(({ node, value }) => (value ?? []).map((row) => ({ node, ...row })));
  const columns: Column<MaintenanceRow & { node: string }>[] = [
    { title: 'NODE', value: (row) => row.node },
    { title: 'BACKEND', value: (row) => endpointText(row.address, row.port) },
    { title: 'DRAINED FOR', value: (row) => durationText((Date.now() - row.sinceMs) / 1000), alignRight: true },
  ];
  await printRows(columns, rows, options, 'No backend is drained.');
}
