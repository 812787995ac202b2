// `weir status`: is it healthy, and if not, what is wrong; then everything an engineer asks next.
import type { Command } from 'commander';
import type { QueryOptions } from './query-command.ts';
import { queryCommand } from './query-command.ts';

/** The command. */
export function statusCommand(): Command {
  return queryCommand(
    'status',
    'Show how the agents are: problems first, then tables, reconcilers, maps, programs and addresses.',
    [
      'weir status',
      'weir status --brief                      # a line per node; exit code 1 when one is unhealthy',
      'weir status --node node1 --wide',
      "weir status -o json | jq '.[].problems'",
    ],
  )
    .option('--brief', 'only the summary')
    .action(async (options: QueryOptions & { brief?: boolean }) => {
      const { showStatus } = await import('./status-text.ts');
      await showStatus(options);
    });
}
