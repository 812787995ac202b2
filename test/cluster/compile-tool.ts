// Compiles the small C programs that tests and benchmarks run in pods, where they are missing or old.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Compiles NAME.c of this folder; returns the path of the program. */
export function compileTool(name: string): string {
  const source = fileURLToPath(new URL(`${name}.c`, import.meta.url));
  const folder = fileURLToPath(new URL('../../build', import.meta.url));
  const program = `${folder}/${name}`;
  if (!existsSync(program) || statSync(program).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(folder, { recursive: true });
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source, '-lpthread'], {
      stdio: 'inherit',
    });
  }
  return program;
}
