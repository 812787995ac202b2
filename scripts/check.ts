// The gate: everything that needs no cluster, side by side, with each part's output only when it fails.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { exitWhenOutputCloses } from '../src/kernel/closed-pipe.ts';

exitWhenOutputCloses(1);
// Few enough to wait for; `make test` and CI try more.
if (process.env.CI === undefined) process.env.WEIR_PROPERTY_RUNS ??= '40';
const root = fileURLToPath(new URL('..', import.meta.url));
const script = (name: string) => [process.execPath, `scripts/${name}`];
const steps: { name: string; command: string[] }[] = [
  { name: 'format and lint', command: ['node_modules/.bin/biome', 'ci', '--colors=off', '.'] },
  { name: 'types', command: ['node_modules/.bin/tsc', '-p', '.'] },
  { name: 'import law', command: script('check-imports.ts') },
  { name: 'unused exports', command: script('check-unused.ts') },
  { name: 'generated files', command: script('check-generated.ts') },
  { name: 'unit tests', command: script('run-tests.ts') },
];

function run(step: (typeof steps)[number]): Promise<boolean> {
  return new Promise((resolve) => {
    const started = performance.now();
    const child = spawn(step.command[0]!, step.command.slice(1), { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (part) => (output += part));
    child.stderr.on('data', (part) => (output += part));
    child.on('close', (code) => {
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      const closing = output.match(/^\d+ passed, \d+ failed.*$/m)?.[0] ?? '';
      process.stdout.write(`${code === 0 ? 'ok  ' : 'FAIL'} ${step.name} (${seconds} s) ${closing}\n`);
      if (code !== 0) process.stdout.write(`${output}\n`);
      else
        for (const line of output.split('\n')) if (line.startsWith('skipped: ')) process.stdout.write(`     ${line}\n`);
      resolve(code === 0);
    });
  });
}

// The quick ones side by side; the tests have the machine to themselves afterwards.
const quick = await Promise.all(steps.slice(0, -1).map(run));
const tests = await run(steps.at(-1)!);
process.exitCode = quick.every(Boolean) && tests ? 0 : 1;
