// Writes the reference pages of docs/ that are made from the source: the command line and the drop reasons. A test
// holds the pages against what this would write.
import { readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type CommandNode, commandTree, type FlagNode, leaves } from '../src/programs/cli/command-tree.ts';
import { weirCommand } from '../src/programs/cli/main.ts';
import { type DropReason, parseDropReasons } from './drop-reasons.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The generated pages, by path. */
export async function generatedPages(): Promise<ReadonlyMap<string, string>> {
  const reasons = parseDropReasons(readFileSync(`${root}bpf/lib/drop_reasons.h`, 'utf8'));
  return new Map([
    ['docs/cli.md', cliPage(commandTree(await weirCommand()))],
    ['docs/drop-reasons.md', dropPage(reasons)],
  ]);
}

function dropPage(reasons: readonly DropReason[]): string {
  const entries = [...reasons]
    .sort((a, b) => a.name.localeCompare(b.name))
    .map(
      ({ name, number, meaning, action }) =>
        `## ${name}\n${number}. ${sentence(meaning)}\nWhat to do: ${sentence(action)}\n`,
    );
  return `# Drop reasons

Every packet that the datapath drops has one of these reasons. \`weir drops\` counts them, flows carry them, and the
numbers are those of the flow API, so that any client of it shows the right name. Made from \`bpf/lib/drop_reasons.h\` by
\`scripts/generate-docs.ts\`.

${entries.join('\n')}`;
}

function sentence(text: string): string {
  return `${text[0]!.toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}

const cliHead = `# The command line

\`weir\` is one executable. Every command has \`--help\` with examples. Made from the commands by
\`scripts/generate-docs.ts\`.

## Which agents are asked
A context is a file that names a cluster's agents: \`~/.config/weir/contexts/NAME.json\`, written by \`weir lab up\`. Commands
ask all nodes of the context, or with \`--node\` one. The order: \`--socket\`, \`--context\`, \`$WEIR_SOCKET\`,
\`$WEIR_CONTEXT\`, the only context there is, \`/run/weir/agent.sock\`. A node that does not answer is a line on standard
error and exit code 4; what the others say is printed all the same.

## How answers are printed
\`-o table\` is for people: it fits the terminal, and into a pipe or with \`--wide\` nothing is cut. \`-o json\` and
\`-o yaml\` are for programs: field names are stable and have their units in them (\`idleSeconds\`, \`memoryBytes\`).

## Exit codes
| code | meaning |
|---|---|
| 0 | done |
| 1 | it ran and failed; for \`weir status\`: an agent is unhealthy; for \`weir policy validate\` and \`test\`: something is wrong |
| 2 | the command line was wrong: nothing was tried |
| 3 | what was asked for does not exist |
| 4 | an agent, the API server or a socket did not answer |
| 5 | it needs root, or a kernel feature that is missing |
| 130 | ended by Ctrl-C |

An error is one line on standard error: its code, what happened and where, and what to do. [errors.md](errors.md) has
all codes.
`;

function cliPage(tree: CommandNode): string {
  return `${cliHead}\n${leaves(tree).map(commandSection).join('\n')}`;
}

function commandSection(node: CommandNode): string {
  const examples = node.help.match(/^Examples:\n([\s\S]*)/m)?.[1]?.trimEnd() ?? '';
  const flags = node.flags.filter((flag) => flag.long !== '--help');
  const table =
    flags.length === 0
      ? ''
      : `\n| flag | meaning | default |\n|---|---|---|\n${flags.map((flag) => `${flagRow(flag)}\n`).join('')}`;
  const code = examples.replace(/^ {2}/gm, '');
  return `## ${node.path.join(' ')}\n${node.description}\n\n\`\`\`sh\n${code}\n\`\`\`\n${table}`;
}

function flagRow(flag: FlagNode): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const choices = flag.choices.length === 0 ? '' : ` (${flag.choices.join(', ')})`;
  return `| \`${cell(flag.usage)}\` | ${cell(flag.description + choices)} | ${cell(defaultOf(flag))} |`;
}

/** Defaults that depend on the machine are said in words. */
function defaultOf(flag: FlagNode): string {
  const text = flag.defaultText;
  if (text === undefined) return '';
  if (flag.long === '--node-name' || text === hostname()) return 'the machine’s name';
  return `\`${text.replace(root, '')}\``;
}

if (import.meta.main) {
  for (const [path, text] of await generatedPages()) writeFileSync(`${root}${path}`, text);
}
