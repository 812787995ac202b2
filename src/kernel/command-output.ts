// Runs a system program whose kernel interface is not worth speaking ourselves, such as nft, and takes its output.
import { spawnSync } from 'node:child_process';

/** What a program said; undefined when there is no such program on this machine. */
export interface CommandOutput {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const timeoutMs = 30_000;
const maxOutputBytes = 256 * 1024 * 1024;

/** Runs it to its end. */
export function commandOutput(program: string, args: readonly string[], stdin = ''): CommandOutput | undefined {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    input: stdin,
    encoding: 'utf8',
    timeout: timeoutMs,
    maxBuffer: maxOutputBytes,
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' },
  });
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return undefined;
  if (error !== undefined) throw error;
  return { status: status ?? 1, stdout, stderr };
}
