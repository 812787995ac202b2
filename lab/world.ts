// The host outside the cluster: a network namespace of its own beside the nodes.
import { hostGroups, makeGroups } from './cgroups.ts';
import { attempt, type CommandOptions, type CommandResult, inCgroups } from './command.ts';
import { netnsFile } from './state.ts';
import { withTools } from './toolbox.ts';

/** The command that runs another one in the world's network; what this machine lacks comes from the toolbox. */
export async function worldCommand(lab: string, argv: readonly string[]): Promise<string[]> {
  makeGroups(lab, 'world');
  const entered = ['nsenter', `--net=${netnsFile(lab, 'world')}`, '--', ...(await withTools(argv))];
  return inCgroups(hostGroups(lab, 'world'), entered);
}

/** Runs a command in the world's network to its end. */
export async function worldExec(
  lab: string,
  argv: readonly string[],
  options?: CommandOptions,
): Promise<CommandResult> {
  return attempt(await worldCommand(lab, argv), options);
}
