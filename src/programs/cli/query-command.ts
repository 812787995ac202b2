// What every command that asks agents has in common: where to ask, how to print, examples.
import { Command } from 'commander';
import { addOutputOptions, type OutputOptions } from './output.ts';
import { addTargetOptions, type TargetOptions } from './targets.ts';

/** The values of the common flags. */
export type QueryOptions = TargetOptions & OutputOptions;

/** A command with its examples, one `command  # what it does` per line. */
export function leafCommand(name: string, description: string, examples: readonly string[]): Command {
  return new Command(name).description(description).addHelpText('after', `\nExamples:\n${exampleLines(examples)}`);
}

/** A command of commands, with examples of them. */
export function groupCommand(
  name: string,
  description: string,
  children: readonly Command[],
  examples: readonly string[],
): Command {
  const group = leafCommand(name, description, examples);
  for (const child of children) group.addCommand(child);
  return group;
}

/** A leaf that asks agents: with --context, --node, --socket, -o and --wide. */
export function queryCommand(name: string, description: string, examples: readonly string[]): Command {
  return addOutputOptions(addTargetOptions(leafCommand(name, description, examples)));
}

function exampleLines(examples: readonly string[]): string {
  const split = examples.map((example) => example.split(/\s+# /));
  const width = Math.max(...split.map(([command]) => command!.length));
  return split
    .map(([command, what]) => `  ${what === undefined ? command : `${command!.padEnd(width)}  # ${what}`}\n`)
    .join('');
}
