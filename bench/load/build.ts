// Compiles the load tools where they are missing or old.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The path of the compiled tool NAME.c. */
export function ensureTool(root: string, name: 'load' | 'cni-load' | 'flip' | 'flood' | 'reach'): string {
  const source = join(root, `bench/load/${name}.c`);
  const output = join(root, `build/${name}`);
  if (!existsSync(output) || statSync(output).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(join(root, 'build'), { recursive: true });
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-o', output, source, '-lpthread'], { stdio: 'inherit' });
  }
  return output;
}

/** The path of the load generator. */
export function ensureLoad(root: string): string {
  return ensureTool(root, 'load');
}
