// Steady traffic from a pod to others, every exchange counted: what was lost while something else happened.
import { spawn } from 'node:child_process';
import { type LabPod, podCommand } from '../../lab/lab.ts';
import type { LabRecord } from '../../lab/state.ts';
import { compileTool } from './compile-tool.ts';

/** Exchanges since the start, by kind; `lost` and `retransmitted` of all kinds together. */
export interface SteadyCounts {
  readonly kept: number;
  readonly new: number;
  readonly udp: number;
  readonly lost: number;
  readonly retransmitted: number;
}

/** Traffic that runs. */
export interface Steady {
  counts(): SteadyCounts;
  /** Resolves when so many more exchanges of each kind are done; rejects after the deadline. */
  more(exchanges: number, deadlineMs?: number): Promise<SteadyCounts>;
  /** Ends it and gives the last counts, and what it said about each loss. */
  stop(): Promise<{ counts: SteadyCounts; losses: string }>;
}

const none: SteadyCounts = { kept: 0, new: 0, udp: 0, lost: 0, retransmitted: 0 };

/** Starts a server for steady traffic on a port of a pod; resolves when it listens. */
export function serveSteady(record: LabRecord, pod: LabPod, port: number): Promise<{ close(): void }> {
  return startServer(podCommand(record, pod, [compileTool('steady'), 'serve', String(port)]));
}

/** Starts a server by its whole command. */
export async function startServer(command: readonly string[]): Promise<{ close(): void }> {
  const [program = '', ...args] = command;
  // It ends with its input, also when this process dies: to kill it would only end what entered the pod for it.
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`steady serve ended with ${code}`)));
  });
  child.removeAllListeners('exit');
  return { close: () => child.stdin.end() };
}

/** Starts asking each address, every `everyMs` in each of three ways. */
export function askSteadily(command: readonly string[]): Steady {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { stdio: 'pipe' });
  const listeners = new Set<() => void>();
  let now = none;
  let rest = '';
  let losses = '';
  child.stderr.on('data', (part) => (losses += part));
  child.stdout.on('data', (part) => {
    const lines = (rest + part).split('\n');
    rest = lines.pop()!;
    const last = lines.at(-1);
    if (last !== undefined) now = JSON.parse(last) as SteadyCounts;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    counts: () => now,
    more(exchanges, deadlineMs = 20_000) {
      const from = now;
      return new Promise((resolve, reject) => {
        const done = () => {
          if (!(['kept', 'new', 'udp'] as const).every((kind) => now[kind] >= from[kind] + exchanges)) return;
          clearTimeout(timer);
          listeners.delete(done);
          resolve(now);
        };
        const timer = setTimeout(() => {
          listeners.delete(done);
          reject(new Error(`traffic stands still: ${JSON.stringify({ from, now })}\n${losses}`));
        }, deadlineMs);
        listeners.add(done);
        done();
      });
    },
    async stop() {
      child.stdin.end();
      await ended;
      return { counts: now, losses };
    },
  };
}
