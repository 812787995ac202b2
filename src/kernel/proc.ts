// A process of this namespace of pids as /proc shows it. It may end at any moment: what cannot be read is left out.
import { readFileSync, readlinkSync } from 'node:fs';

/** What /proc says of a process. */
export interface ProcProcess {
  readonly executable: string;
  readonly arguments: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  /** When it began: hundredths of a second since the machine did, time in suspension included. */
  readonly startTicks: number;
  /** Its control group on cgroup v2. */
  readonly cgroup: string;
}

/** Undefined when it is gone, or what is there is another process than the one that began at `startTicks`. */
export function readProcess(pid: number, startTicks?: number): ProcProcess | undefined {
  const folder = `/proc/${pid}`;
  try {
    const status = readFileSync(`${folder}/status`, 'latin1');
    const row = {
      executable: link(`${folder}/exe`),
      arguments: splitArguments(readFileSync(`${folder}/cmdline`)),
      cwd: link(`${folder}/cwd`),
      uid: Number(/^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1] ?? 0),
      cgroup: /^0::(.*)$/m.exec(readFileSync(`${folder}/cgroup`, 'latin1'))?.[1] ?? '',
    };
    // Last: what was read before is of this process, if it is still the same one.
    const ticks = startTicksOf(pid);
    return ticks === undefined || (startTicks !== undefined && ticks !== startTicks)
      ? undefined
      : { ...row, startTicks: ticks };
  } catch {
    return undefined;
  }
}

/** The working directory of the process that began at `startTicks`; empty when it is gone. */
export function workingDirectory(pid: number, startTicks: number): string {
  const cwd = link(`/proc/${pid}/cwd`);
  return cwd !== '' && startTicksOf(pid) === startTicks ? cwd : '';
}

function startTicksOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may hold anything, parentheses too.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return undefined;
  }
}

/** Arguments as the kernel keeps them: each ended by a zero. Bytes that are no UTF-8 become U+FFFD. */
export function splitArguments(bytes: Uint8Array): string[] {
  if (bytes.length === 0) return [];
  const end = bytes.at(-1) === 0 ? bytes.length - 1 : bytes.length;
  const args = decoder.decode(bytes.subarray(0, end)).split('\0');
  // A program that shows something else in its place leaves the rest of it empty.
  while (args.length > 1 && args.at(-1) === '') args.pop();
  return args;
}

const decoder = new TextDecoder();

function link(path: string): string {
  try {
    return readlinkSync(path).replace(/ \(deleted\)$/, '');
  } catch {
    return '';
  }
}

/** The number of the namespace of pids that this process is in. */
export function pidNamespace(): number {
  return Number(/\[(\d+)\]/.exec(readlinkSync('/proc/self/ns/pid'))?.[1]);
}
