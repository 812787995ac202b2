// `weir status`: is it healthy, and if not, what is wrong; then everything an engineer asks next.
import type { Command } from 'commander';
import type { QueryOptions } from './query-command.ts';
import { queryCommand } from './query-command.ts';
import { addServerOptions, type ServerOptions } from './server-options.ts';

/** The command. */
export function statusCommand(): Command {
  return addServerOptions(
    queryCommand(
      'status',
      'Show how the agents are: problems first, then tables, reconcilers, maps, programs and addresses.',
      [
        'weir status',
        'weir status --brief                      # a line per node; exit code 1 when one is unhealthy',
        'weir status --node node1 --wide',
        'weir status --server relay:4245 --tls-ca-cert-files ca.crt   # a relay, and the nodes it reads',
        "weir status -o json | jq '.[].problems'",
      ],
    ),
  )
    .option('--brief', 'only the summary')
    .action(async (options: QueryOptions & ServerOptions & { brief?: boolean }) => {
      if (options.server !== undefined) {
        const { showServerStatus } = await import('./status-server.ts');
        return showServerStatus({ ...options, server: options.server });
      }
      const { showStatus } = await import('./status-text.ts');
      await showStatus(options);
    });
}
