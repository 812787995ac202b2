// Who a process is: its pid together with its start time and the machine's boot, so that a reused pid is never signalled.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { waitFor } from './wait.ts';

/** A process as it can be recognised later, even by another program. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and start, from /proc/PID/stat. */
  readonly startTicks: string;
  readonly bootId: string;
}

/** The fields of /proc/PID/stat that matter here. The name may contain spaces and brackets, so it is cut off first. */
export function parseStat(
  stat: string,
): { state: string; parentPid: number; threads: number; startTicks: string } | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, parentPid] = fields;
  const threads = fields[17];
  const startTicks = fields[19];
  if (state === undefined || parentPid === undefined || threads === undefined || startTicks === undefined)
    return undefined;
  return { state, parentPid: Number(parentPid), threads: Number(threads), startTicks };
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/**
 * The identity of a running process; undefined when it has ended, also while its parent has not collected it yet. Its
 * first thread may end before others: until the last one has, its files and sockets are open, and it runs.
 */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    if (stat === undefined || stat.state === 'X' || (stat.state === 'Z' && stat.threads <= 1)) return undefined;
    return { pid, startTicks: stat.startTicks, bootId: bootId() };
  } catch {
    return undefined;
  }
}

/** True while exactly this process runs. */
export function isAlive(process: ProcessIdentity | undefined): boolean {
  if (process === undefined) return false;
  const now = identify(process.pid);
  return now !== undefined && now.startTicks === process.startTicks && now.bootId === process.bootId;
}

/** The pids of a process's children. */
export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** Writes a process's identity to a file. */
export function remember(file: string, process: ProcessIdentity): void {
  writeFileSync(file, `${JSON.stringify(process)}\n`);
}

/** Reads a remembered process; undefined when there is none, or when the file was only half written. */
export function recall(file: string): ProcessIdentity | undefined {
  try {
    const found = JSON.parse(readFileSync(file, 'utf8')) as Partial<ProcessIdentity>;
    if (typeof found.pid !== 'number' || typeof found.startTicks !== 'string' || typeof found.bootId !== 'string') {
      return undefined;
    }
    return { pid: found.pid, startTicks: found.startTicks, bootId: found.bootId };
  } catch {
    return undefined;
  }
}

/** Sends a signal to exactly this process; false when it has ended. */
export function signalProcess(target: ProcessIdentity | undefined, signal: NodeJS.Signals): boolean {
  if (target === undefined || !isAlive(target)) return false;
  try {
    process.kill(target.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Ends a remembered process: asks with SIGTERM, kills after `graceMs` (at once when 0), and forgets it. */
export async function stopRemembered(file: string, graceMs: number): Promise<void> {
  const target = recall(file);
  if (target !== undefined && isAlive(target)) {
    if (graceMs > 0 && signalProcess(target, 'SIGTERM')) {
      await waitFor(`process ${target.pid} to end`, async () => !isAlive(target), graceMs).catch(() => undefined);
    }
    if (signalProcess(target, 'SIGKILL')) {
      await waitFor(`process ${target.pid} to be killed`, async () => !isAlive(target), 10_000);
    }
  }
  rmSync(file, { force: true });
}
