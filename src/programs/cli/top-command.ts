// `weir top`: who talks most, now.
import { Command, Option } from 'commander';
import { wholeNumber } from './agent-command.ts';
import { addFilterFlags } from './observe-command.ts';
import { addServerOptions } from './server-options.ts';
import { addTargetOptions } from './targets.ts';
import { groupings, sortings } from './top/choices.ts';

/** The command and its options. */
export function topCommand(): Command {
  const command = addServerOptions(
    addTargetOptions(
      new Command('top').description('Show who talks most, now: bytes, packets, connections, drops, round trips.'),
    ),
  )
    .addOption(new Option('--by <WHAT>', 'what rows stand for').choices(groupings).default('pod'))
    .addOption(new Option('--sort <COLUMN>', 'the column whose most come first').choices(sortings).default('bytes'))
    .option('--seconds <COUNT>', 'without a terminal, and with -o json: for how long', wholeNumber(1, 3_600), 5)
    .option('--limit <COUNT>', 'without a terminal, and with -o json: rows at most', wholeNumber(1, 100_000), 50)
    .addOption(
      new Option('-o, --output <FORMAT>', 'how to print; json is for once').choices(['table', 'json']).default('table'),
    );
  const chosen = addFilterFlags(command);
  return command
    .addHelpText(
      'after',
      `
On a terminal: q quits, s sorts by the next column, b groups by the next kind, p pauses, the arrows scroll.
Bytes and packets are those of both directions, as connections report them: every 5 s, and when they end.

Examples:
  weir top                                       # the busiest pairs of pods, now
  weir top --by process -n shop                  # which programs of a namespace talk
  weir top --by port --sort connections          # which services are asked most often
  weir top --verdict dropped --sort drops        # who is denied most
  weir top --server relay:4245 --by workload     # of a relay
  weir top --seconds 10 -o json | jq '.rows[0]'  # once
`,
    )
    .action(async (options) => {
      const { top } = await import('./top/top.ts');
      const code = await top({ ...options, filters: chosen.filters, trailingNot: chosen.trailingNot });
      // Streams of flows go on until somebody ends them.
      process.stdout.write('', () => process.exit(code));
    });
}
