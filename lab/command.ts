// Running programs: to the end with their output, or detached with their output in a log.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { WeirError } from '../src/core/errors.ts';
import { identify, type ProcessIdentity } from './process-identity.ts';

/** How a program ended, with what it wrote. */
export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a program is run with. */
export interface CommandOptions {
  readonly stdin?: string | Buffer;
  readonly env?: Record<string, string | undefined>;
  readonly cwd?: string;
  /** Kills the program after this time. */
  readonly timeoutMs?: number;
  /** Shows what the program writes to stderr, line by line, while it runs. */
  readonly onStderrLine?: (line: string) => void;
}

/** Runs a program to its end. Only a program that cannot be started is an error; see `run` for the strict form. */
export function attempt(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const [program = '', ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: [options.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' as const }),
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let rest = '';
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr.push(chunk);
      if (options.onStderrLine === undefined) return;
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      lines.forEach(options.onStderrLine);
    });
    child.on('error', (error) =>
      reject(
        (error as NodeJS.ErrnoException).code === 'ENOENT'
          ? new WeirError('LAB_PROGRAM_MISSING', `${program} is not installed`)
          : error,
      ),
    );
    child.on('close', (code, signal) =>
      resolve({
        status: code ?? (signal === null ? 1 : 128),
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      }),
    );
    // A program that ends without reading its input is judged by its status.
    child.stdin?.on('error', () => undefined);
    if (options.stdin !== undefined) child.stdin?.end(options.stdin);
  });
}

/** Runs a program and returns what it printed; a status other than 0 is an error with the program's own words. */
export async function run(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await attempt(argv, options);
  if (result.status !== 0) {
    const words = result.stderr.trim() || result.stdout.trim() || `status ${result.status}`;
    throw new WeirError('LAB_COMMAND_FAILED', `${argv.slice(0, 6).join(' ')}: ${words}`);
  }
  return result.stdout;
}

/** Runs a program with this terminal, and returns its exit status. */
export function runInteractive(argv: readonly string[], env: Record<string, string> = {}): Promise<number> {
  const [program = '', ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit', env: { ...process.env, ...env } });
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

// Joins cgroups, and only then becomes the program: whatever it starts is in them too.
const joinThenExec = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"';

/** The command that joins control groups and then becomes `argv`, with the same pid. */
export function inCgroups(directories: readonly string[], argv: readonly string[]): string[] {
  return ['/bin/sh', '-c', joinThenExec, 'join', ...directories, '--', ...argv];
}

/** Starts a program that outlives this one, with its output appended to a log. */
export function startDetached(
  argv: readonly string[],
  options: { logFile: string; env?: Record<string, string | undefined> },
): ProcessIdentity {
  const [program = '', ...args] = argv;
  const log = openSync(options.logFile, 'a');
  try {
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log],
      cwd: '/',
      env: { ...process.env, ...options.env },
    });
    child.on('error', () => undefined); // told by the missing pid below
    child.unref();
    const identity = child.pid === undefined ? undefined : identify(child.pid);
    if (identity === undefined) throw new WeirError('LAB_PROGRAM_MISSING', `${program} could not be started`);
    return identity;
  } finally {
    closeSync(log);
  }
}
