// Drives probers in pods: many connection attempts at once, each with its outcome.
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What came of an attempt: an answer, a refusal (RST or ICMP), or nothing until the time was over. */
export type ProbeOutcome = 'ok' | 'refused' | 'silent';

/** A prober that runs. */
export interface Prober {
  probe(protocol: 'tcp' | 'udp', address: string, port: number, timeoutMs: number): Promise<ProbeOutcome>;
  close(): void;
}

const source = fileURLToPath(new URL('prober.c', import.meta.url));
const binary = fileURLToPath(new URL('../../build/prober', import.meta.url));

/** The compiled prober. */
export function ensureProber(): string {
  if (!existsSync(binary) || statSync(binary).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(fileURLToPath(new URL('../../build', import.meta.url)), { recursive: true });
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', binary, source], { stdio: 'inherit' });
  }
  return binary;
}

/** Starts a prober by `command`, which has its path and ports at the end; resolves when it answers on its ports. */
export async function startProber(command: readonly string[]): Promise<Prober> {
  const child: ChildProcessWithoutNullStreams = spawn(command[0]!, command.slice(1), { stdio: 'pipe' });
  const waiting = new Map<number, (outcome: ProbeOutcome) => void>();
  let next = 1;
  let rest = '';
  let errors = '';
  child.stderr.on('data', (part) => (errors += part));
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the prober ended with ${code}: ${errors}`)));
    child.stdout.on('data', (part) => {
      rest += part;
      const lines = rest.split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        if (line === 'ready') resolve();
        const [id, outcome] = line.split(' ');
        waiting.get(Number(id))?.(outcome as ProbeOutcome);
        waiting.delete(Number(id));
      }
    });
  });
  return {
    probe: (protocol, address, port, timeoutMs) =>
      new Promise((resolve) => {
        const id = next++;
        waiting.set(id, resolve);
        child.stdin.write(`${id} ${protocol} ${address} ${port} ${timeoutMs}\n`);
      }),
    // To kill it would end what entered the pod for it, and leave the prober.
    close: () => child.stdin.end(),
  };
}
