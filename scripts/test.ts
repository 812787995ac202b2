// Everything: the gate first, then what needs a cluster. Ends with one line that counts all tests.
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { exitWhenOutputCloses } from '../src/kernel/closed-pipe.ts';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
exitWhenOutputCloses(1);
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

/** The lab that cluster tests share, and those of one family; what a run before this left half-made is not to be trusted. */
function endLabs(): void {
  for (const name of [process.env.WEIR_TEST_LAB ?? 'test', 'test-v4', 'test-v6']) {
    const { status, stderr } = spawnSync('bin/weir', ['lab', 'down', '--name', name], { encoding: 'utf8' });
    if (status !== 0) process.stdout.write(`the lab ${name} could not be ended: ${stderr}\n`);
  }
}

process.env.WEIR_PROPERTY_RUNS ??= '150';
run(['scripts/check.ts']);
if (ok || process.env.CI === undefined) {
  // Real receivers of exports take minutes to get: `make exporters`.
  const files = globSync('test/**/*.test.ts')
    .filter((file) => !file.startsWith('test/exporters/'))
    .sort();
  endLabs();
  try {
    // One at a time: they share a lab, and each wants to be alone with it.
    for (const file of files) {
      const started = performance.now();
      run(['scripts/run-tests.ts', '--concurrency', '1', file]);
      process.stdout.write(`   ${file} (${((performance.now() - started) / 1000).toFixed(0)} s)\n`);
    }
  } finally {
    endLabs();
  }
}
if (!ok && total.failed === 0) total.failed = 1;
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = ok ? 0 : 1;
