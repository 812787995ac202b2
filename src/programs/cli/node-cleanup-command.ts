// `weir node cleanup`: takes off this machine what an agent has put there.
import { Command } from 'commander';
import type { CleanupOptions } from '../agent/node-cleanup.ts';

/** The command and its options. */
export function nodeCleanupCommand(): Command {
  return new Command('cleanup')
    .description(
      'Take Weir off this node: programs, maps, devices, routes, the plugin. Pods that are still here lose their network.',
    )
    .option('--dry-run', 'only say what there is', false)
    .option('--state', 'also what outlives restarts: addresses and numbers of pods', false)
    .option('--force', 'also while an agent runs, which may put things back', false)
    .option('--state-dir <dir>', 'as the agent was told', '/var/lib/weir')
    .option('--run-dir <dir>', 'as the agent was told', '/run/weir')
    .option('--bpffs <dir>', 'as the agent was told', '/sys/fs/bpf')
    .option('--cni-bin-dir <dir>', 'as the agent was told', '/opt/cni/bin')
    .option('--cni-conf-dir <dir>', 'as the agent was told', '/etc/cni/net.d')
    .addHelpText(
      'after',
      `
Examples:
  weir node cleanup --dry-run   # what an agent has left on this machine
  weir node cleanup --state     # remove all of it; safe to run again
`,
    )
    .action(async (options: CleanupOptions) => {
      const { cleanNode } = await import('../agent/node-cleanup.ts');
      const lines = await cleanNode(options);
      const done = options.dryRun ? 'found' : 'removed';
      for (const line of lines) process.stdout.write(`${done} ${line}\n`);
      if (lines.length === 0) process.stdout.write('Nothing of Weir is on this node.\n');
    });
}
