// The host outside the cluster: a network namespace of its own beside the nodes.
import { hostGroups, makeGroups } from './cgroups.ts';
import { attempt, type CommandOptions, type CommandResult, inCgroups } from './command.ts';
import { netnsFile } from './state.ts';

/** The command that runs another one in the world's network. */
export function worldCommand(lab: string, argv: readonly string[]): string[] {
  makeGroups(lab, 'world');
  return inCgroups(hostGroups(lab, 'world'), ['nsenter', `--net=${netnsFile(lab, 'world')}`, '--', ...argv]);
}

/** Runs a command in the world's network to its end. */
export function worldExec(lab: string, argv: readonly string[], options?: CommandOptions): Promise<CommandResult> {
  return attempt(worldCommand(lab, argv), options);
}
