// The one executable: parses the command line and runs a command. Commands are in files of their own and are loaded only
// when they are asked for, so that `weir --help` and completion answer at once.
import { Command } from 'commander';
import { errorText, WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { agentCommand } from './agent-command.ts';
import { exitCodeOf } from './exit-code.ts';
import { observeCommand } from './observe-command.ts';
import { operatorCommand } from './operator-command.ts';
import { version } from './version.ts';

/** The whole command line. */
export function weirCommand(): Command {
  const program = new Command('weir')
    .description('Connects, secures and observes the workloads of Kubernetes clusters by who they are.')
    .version(version, '-V, --version')
    .showHelpAfterError('(see --help)')
    .exitOverride();
  program.addCommand(agentCommand());
  program.addCommand(operatorCommand());
  program.addCommand(observeCommand());
  return program;
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
      process.stderr.write(`weir: ${error.code}: ${error.message}\n      ${error.hint}\n`);
      return exitCodeOf(error);
    }
    process.stderr.write(`weir: ${errorText(error)}\n`);
    if (process.env.WEIR_DEBUG) process.stderr.write(`${(error as Error).stack}\n`);
    return exitCodes.failed;
  }
}

if (import.meta.main) process.exitCode = await run(process.argv.slice(2));
