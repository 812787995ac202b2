// The command line as plain data: what completion and the reference in docs/ are made from.
import type { Command } from 'commander';

/** A flag as it is typed. */
export interface FlagNode {
  readonly long?: string;
  readonly short?: string;
  /** As in --help: `-o, --output FORMAT`. */
  readonly usage: string;
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
  readonly defaultText?: string;
}

/** A command and what is below it. */
export interface CommandNode {
  /** Such as ['weir', 'endpoint', 'list']. */
  readonly path: readonly string[];
  readonly description: string;
  readonly usage: string;
  readonly arguments: readonly { readonly name: string; readonly choices: readonly string[] }[];
  readonly flags: readonly FlagNode[];
  readonly children: readonly CommandNode[];
  /** What --help says, examples included. */
  readonly help: string;
}

/** Reads a command and everything below it. */
export function commandTree(command: Command, above: readonly string[] = []): CommandNode {
  const path = [...above, command.name()];
  const help: FlagNode = {
    long: '--help',
    short: '-h',
    usage: '-h, --help',
    description: 'help',
    takesValue: false,
    choices: [],
  };
  return {
    path,
    description: command.description(),
    usage: `${path.join(' ')} ${command.usage()}`,
    arguments: command.registeredArguments.map((each) => ({ name: each.name(), choices: each.argChoices ?? [] })),
    flags: [
      ...command.options
        .filter((option) => !option.hidden)
        .map((option) => ({
          long: option.long ?? undefined,
          short: option.short ?? undefined,
          usage: option.flags,
          description: option.description,
          takesValue: option.required || option.optional,
          choices: option.argChoices ?? [],
          defaultText: defaultText(option.defaultValue),
        })),
      help,
    ],
    children: command.commands.map((child) => commandTree(child, path)),
    help: helpText(command),
  };
}

/** All commands that do something, in the order of --help. */
export function leaves(node: CommandNode): CommandNode[] {
  return node.children.length === 0 ? [node] : node.children.flatMap(leaves);
}

function defaultText(value: unknown): string | undefined {
  if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) return undefined;
  if (typeof value === 'object') return Object.keys(value as object).length === 0 ? undefined : JSON.stringify(value);
  return String(value);
}

/** The whole of --help, whatever terminal it is read on. */
function helpText(command: Command): string {
  let text = '';
  command.configureOutput({
    writeOut: (part) => (text += part),
    getOutHelpWidth: () => 100,
    getOutHasColors: () => false,
  });
  command.outputHelp();
  return text;
}
