// `weir nat`: the translations of the balancer.
import type { Command } from 'commander';
import type { NatView } from '../agent/nat-entries.ts';
import { wholeNumber } from './agent-command.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** `nat list`. */
export function natCommand(): Command {
  const list = queryCommand('list', 'List connections to frontends and where their packets go, the latest first.', [
    'weir nat list',
    'weir nat list --limit 20 --node node1',
    'weir nat list -o json | jq \'.[] | select(.mode == "snat")\'',
  ])
    .option('--limit <count>', 'at most so many of each node', wholeNumber(1, 10_000_000), 1000)
    .action(listTranslations);
  return groupCommand(
    'nat',
    'Translations of services, per packet.',
    [list],
    [
      'weir nat list           # who asked for what, and where it goes',
      'weir nat list --wide    # and behind which address',
    ],
  );
}

async function listTranslations(options: QueryOptions & { limit: number }): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { durationText, endText, protocolText } = await import('./display-units.ts');
  const answers = await askNodes<NatView[]>(options, `/v1/nat?limit=${options.limit}`);
  const rows = answers.flatMap(({ node, value }) => (value ?? []).map((row) => ({ node, ...row })));
  const columns: Column<NatView & { node: string }>[] = [
    { title: 'NODE', value: (row) => row.node, shrinkTo: 6 },
    { title: 'PROTO', value: (row) => protocolText(row.protocol) },
    { title: 'CLIENT', value: (row) => endText(row.client, row.clientPort, row.protocol), shrinkTo: 15 },
    { title: 'FRONTEND', value: (row) => endText(row.frontend, row.frontendPort, row.protocol), shrinkTo: 15 },
    { title: 'BACKEND', value: (row) => endText(row.backend, row.backendPort, row.protocol), shrinkTo: 15 },
    { title: 'MODE', value: (row) => row.mode },
    {
      title: 'BEHIND',
      value: (row) => row.natAddress && endText(row.natAddress, row.natPort!, row.protocol),
      wide: true,
    },
    { title: 'SERVICE', value: (row) => row.service, shrinkTo: 12 },
    { title: 'STATE', value: (row) => row.state },
    { title: 'IDLE', value: (row) => durationText(row.idleSeconds), alignRight: true },
  ];
  await printRows(columns, rows, options, 'No translations.');
}
