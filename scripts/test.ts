// Everything: the gate first, then what needs a cluster. Ends with one line that counts all tests.
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const total = { passed: 0, failed: 0, skipped: 0 };
let ok = true;

function run(args: string[]): void {
  const result = spawnSync(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  process.stdout.write(result.stdout.replace(/^(\d+ passed, \d+ failed.*)$/gm, '-- $1'));
  for (const match of result.stdout.matchAll(/(\d+) passed, (\d+) failed, (\d+) skipped/g)) {
    total.passed += Number(match[1]);
    total.failed += Number(match[2]);
    total.skipped += Number(match[3]);
  }
  if (result.status !== 0) ok = false;
}

run(['scripts/check.ts']);
if (ok || process.env.CI === undefined) {
  const files = globSync('test/**/*.test.ts').sort();
  // One at a time: they share a lab, and each wants to be alone with it.
  if (files.length > 0) run(['scripts/run-tests.ts', '--concurrency', '1', ...files]);
}
if (!ok && total.failed === 0) total.failed = 1;
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = ok ? 0 : 1;
