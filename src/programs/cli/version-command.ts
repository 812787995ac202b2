// `weir version`: of this command line, and of the agents it talks to.
import type { Command } from 'commander';
import type { StatusView } from '../agent/status-view.ts';
import { printValue, tableText } from './output.ts';
import { type QueryOptions, queryCommand } from './query-command.ts';
import { version } from './version.ts';

/** The command. */
export function versionCommand(): Command {
  return queryCommand('version', 'Show the version of this command line and of the agents.', [
    'weir version',
    'weir version --client   # asks no agent',
    'weir version -o json',
  ])
    .option('--client', 'only of this command line')
    .action(showVersion);
}

async function showVersion(options: QueryOptions & { client?: boolean }): Promise<void> {
  const agents: { node: string; version: string; startedAt: string }[] = [];
  if (!options.client) {
    const { askNodes } = await import('./ask-nodes.ts');
    for (const { node, value } of await askNodes<StatusView>(options, '/v1/status'))
      if (value !== undefined) agents.push({ node, version: value.version, startedAt: value.startedAt });
  }
  if (options.output !== 'table') return printValue({ client: version, agents }, options);
  process.stdout.write(`client: ${version}\n`);
  if (agents.length === 0) return;
  process.stdout.write(
    tableText(
      [
        { title: 'AGENT', value: (row) => row.node },
        { title: 'VERSION', value: (row) => row.version },
        { title: 'STARTED', value: (row) => row.startedAt },
      ],
      agents,
    ),
  );
}
