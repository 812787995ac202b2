// `weir completion`: scripts that teach a shell to complete this command line.
import { Argument, type Command, Option } from 'commander';
import type { NameKind } from './completion-names.ts';
import { leafCommand } from './query-command.ts';
import type { TargetOptions } from './targets.ts';

/** The shells that are spoken. */
export const shells = ['bash', 'zsh', 'fish'] as const;

/** The command. `root` is asked when it runs, when all commands are there. */
export function completionCommand(root: () => Promise<Command>): Command {
  return (
    leafCommand('completion', 'Print a script that completes this command line in a shell.', [
      'source <(weir completion bash)                              # in this shell',
      'weir completion bash > /etc/bash_completion.d/weir          # in every bash',
      `weir completion zsh > \${fpath[1]}/_weir                     # in every zsh`,
      'weir completion fish > ~/.config/fish/completions/weir.fish # in every fish',
    ])
      .addArgument(new Argument('<shell>', 'which shell').choices(shells))
      // The scripts ask for what only agents know.
      .addOption(new Option('--names <kind>').choices(['namespaces', 'pods', 'nodes']).hideHelp())
      .addOption(new Option('--context <name>').hideHelp())
      .addOption(new Option('--socket <path>').hideHelp())
      .action(async (shell: (typeof shells)[number], options: TargetOptions & { names?: NameKind }) => {
        if (options.names !== undefined) {
          const { completionNames } = await import('./completion-names.ts');
          const names = await completionNames(options.names, options);
          // Agents that have not answered yet are not waited for.
          process.stdout.write(names.map((each) => `${each}\n`).join(''), () => process.exit(0));
          return;
        }
        const { completionScript } = await import('./completion-scripts.ts');
        const { commandTree } = await import('./command-tree.ts');
        process.stdout.write(completionScript(shell, commandTree(await root())));
      })
  );
}
