// Compiles a C source of this folder for a test, once per test process.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const directory = mkdtempSync(join(tmpdir(), 'weir-bpf-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** Compiles BPF C source text and returns the object's path. `debug: false` leaves BTF out. */
export function compileBpf(name: string, source: string, options: { debug?: boolean } = {}): string {
  const input = join(directory, `${name}.bpf.c`);
  const output = join(directory, `${name}.bpf.o`);
  writeFileSync(input, source);
  const debug = options.debug === false ? [] : ['-g'];
  const include = `/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
  const flags = ['-O2', ...debug, '-target', 'bpf', '-mcpu=v3', '-Wall', `-I${include}`];
  execFileSync('clang-19', [...flags, '-c', input, '-o', output], { stdio: ['ignore', 'inherit', 'inherit'] });
  return output;
}

/** Why BPF tests cannot run here, or undefined. */
export function bpfSkipReason(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: loads BPF programs';
  try {
    execFileSync('clang-19', ['--version'], { stdio: 'ignore' });
  } catch {
    return 'needs clang-19';
  }
  return undefined;
}
