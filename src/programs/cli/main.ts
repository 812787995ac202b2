// The one executable: parses the command line and runs a command. Commands are in files of their own and are loaded only
// when they are asked for, so that `weir --help` and completion answer at once.
import { Command } from 'commander';
import { errorText, WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { agentCommand } from './agent-command.ts';
import { completionCommand } from './completion-command.ts';
import { ctCommand } from './ct-command.ts';
import { doctorCommand } from './doctor-command.ts';
import { dropsCommand } from './drops-command.ts';
import { endpointCommand } from './endpoint-command.ts';
import { errorLine } from './error-line.ts';
import { exitCodeOf } from './exit-code.ts';
import { identityCommand } from './identity-command.ts';
import { ipCommand } from './ip-command.ts';
import { labCommand } from './lab-command.ts';
import { nodeCommand } from './node-command.ts';
import { observeCommand } from './observe-command.ts';
import { operatorCommand } from './operator-command.ts';
import { policyCommand } from './policy-command.ts';
import { statusCommand } from './status-command.ts';
import { version } from './version.ts';
import { versionCommand } from './version-command.ts';

/** The whole command line. */
export function weirCommand(): Command {
  const program = new Command('weir')
    .description('Connects, secures and observes the workloads of Kubernetes clusters by who they are.')
    .version(version, '-V, --version')
    .addHelpText('after', examples);
  for (const command of [
    observeCommand(),
    statusCommand(),
    endpointCommand(),
    identityCommand(),
    policyCommand(),
    nodeCommand(),
    ipCommand(),
    ctCommand(),
    dropsCommand(),
    doctorCommand(),
    versionCommand(),
    completionCommand(() => program),
    labCommand(),
    agentCommand(),
    operatorCommand(),
  ])
    program.addCommand(command);
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
    await weirCommand().parseAsync([...argv], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const { code, exitCode } = error as { code?: string; exitCode?: number };
    if (typeof code === 'string' && code.startsWith('commander.')) return exitCode === 0 ? 0 : exitCodes.usage;
    if (error instanceof WeirError) {
      process.stderr.write(errorLine(error));
      return exitCodeOf(error);
    }
    process.stderr.write(`weir: ${errorText(error)}\n`);
    if (process.env.WEIR_DEBUG) process.stderr.write(`${(error as Error).stack}\n`);
    return exitCodes.failed;
  }
}

if (import.meta.main) {
  // Whoever reads may have seen enough: `weir ct list | head` is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  process.exitCode = await run(process.argv.slice(2));
}
