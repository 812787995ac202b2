// Compiles the load tool where it is missing or old.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The path of the compiled tool. */
export function ensureLoad(root: string): string {
  const source = join(root, 'bench/load/load.c');
  const output = join(root, 'build/load');
  if (!existsSync(output) || statSync(output).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(join(root, 'build'), { recursive: true });
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-o', output, source, '-lpthread'], { stdio: 'inherit' });
  }
  return output;
}
