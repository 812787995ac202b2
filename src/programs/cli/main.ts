// The one executable: parses the command line and runs a command. Commands are in files of their own and are loaded only
// when they are asked for, so that `weir --help` and completion answer at once.
import { Command } from 'commander';
import { errorText, WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { exitWhenOutputCloses } from '../../kernel/closed-pipe.ts';
import { errorLine } from './error-line.ts';
import { exitCodeOf } from './exit-code.ts';
import { say } from './printable.ts';
import { version } from './version.ts';

/** The commands in the order of --help, each in a file of its own that is loaded when it is needed. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  observe: async () => (await import('./observe-command.ts')).observeCommand(),
  top: async () => (await import('./top-command.ts')).topCommand(),
  why: async () => (await import('./why-command.ts')).whyCommand(),
  ps: async () => (await import('./ps-command.ts')).psCommand(),
  status: async () => (await import('./status-command.ts')).statusCommand(),
  endpoint: async () => (await import('./endpoint-command.ts')).endpointCommand(),
  identity: async () => (await import('./identity-command.ts')).identityCommand(),
  policy: async () => (await import('./policy-command.ts')).policyCommand(),
  node: async () => (await import('./node-command.ts')).nodeCommand(),
  ip: async () => (await import('./ip-command.ts')).ipCommand(),
  service: async () => (await import('./service-command.ts')).serviceCommand(),
  backend: async () => (await import('./backend-command.ts')).backendCommand(),
  nat: async () => (await import('./nat-command.ts')).natCommand(),
  ct: async () => (await import('./ct-command.ts')).ctCommand(),
  drops: async () => (await import('./drops-command.ts')).dropsCommand(),
  doctor: async () => (await import('./doctor-command.ts')).doctorCommand(),
  version: async () => (await import('./version-command.ts')).versionCommand(),
  completion: async () => (await import('./completion-command.ts')).completionCommand(weirCommand),
  lab: async () => (await import('./lab-command.ts')).labCommand(),
  agent: async () => (await import('./agent-command.ts')).agentCommand(),
  certs: async () => (await import('./certs-command.ts')).certsCommand(),
  relay: async () => (await import('./relay-command.ts')).relayCommand(),
  operator: async () => (await import('./operator-command.ts')).operatorCommand(),
};

/** The command line: whole, or with one command only. */
export async function weirCommand(only?: string): Promise<Command> {
  const program = new Command('weir')
    .description('Connects, secures and observes the workloads of Kubernetes clusters by who they are.')
    .version(version, '-V, --version')
    .addHelpText('after', examples);
  const names = only !== undefined && Object.hasOwn(commands, only) ? [only] : Object.keys(commands);
  for (const name of names) program.addCommand(await commands[name]!());
  prepare(program);
  return program;
}

const examples = `
Examples:
  weir status                             # is everything well?
  weir observe --verdict dropped          # who was denied, and by which policy
  weir endpoint get storefront/web-0      # what holds for a pod
  weir doctor                             # what this machine's kernel offers
`;

/** What holds for every command: mistakes end in an exit code, never in the process going at once. */
function prepare(command: Command): void {
  command
    .exitOverride()
    .showHelpAfterError(`(see ${pathOf(command)} --help)`)
    .helpCommand(false);
  for (const child of command.commands) prepare(child);
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

/** Runs the command line and answers with the exit code. Errors are one line: what, and what to do. */
export async function run(argv: readonly string[]): Promise<number> {
  try {
    const program = await weirCommand(argv[0]);
    await program.parseAsync([...argv], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const { code, exitCode } = error as { code?: string; exitCode?: number };
    if (typeof code === 'string' && code.startsWith('commander.')) return exitCode === 0 ? 0 : exitCodes.usage;
    if (error instanceof WeirError) {
      process.stderr.write(errorLine(error));
      return exitCodeOf(error);
    }
    say(errorText(error));
    if (process.env.WEIR_DEBUG) process.stderr.write(`${(error as Error).stack}\n`);
    return exitCodes.failed;
  }
}

if (import.meta.main) {
  exitWhenOutputCloses();
  process.exitCode = await run(process.argv.slice(2));
  // What failed may have left streams of other nodes open, which would keep the process. All that was written goes first.
  if (process.exitCode !== 0) process.stdout.write('', () => process.stderr.write('', () => process.exit()));
}
