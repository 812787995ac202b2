// Runs test files with Node's runner and prints what failed, what was skipped and why, and one closing line.
// usage: run-tests.ts [--concurrency N] [--times] [FILE...]    without files: all *.test.ts outside test/
import { globSync, rmSync } from 'node:fs';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { exitWhenOutputCloses } from '../src/kernel/closed-pipe.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);
const args = process.argv.slice(2);
const at = args.indexOf('--concurrency');
const concurrency = at < 0 ? 2 : Number(args.splice(at, 2)[1]);
const timesAt = args.indexOf('--times');
if (timesAt >= 0) args.splice(timesAt, 1);
/** How long each file took. */
const times = new Map<string, number>();
const files = args.length > 0 ? args : globSync('{src,lab,scripts,bpf,bench}/**/*.test.ts').sort();

exitWhenOutputCloses(1);
// Compiled code is kept: each file is a process, and to strip types is a quarter of what most of them do.
const cache = `${root}build/test-cache`;
const mostEntries = 20_000;
// Every version of a file leaves entries; nothing else removes them.
if (globSync(`${cache}/*/*`).length > mostEntries) rmSync(cache, { recursive: true, force: true });
process.env.NODE_COMPILE_CACHE ??= cache;
process.env.NODE_COMPILE_CACHE_PORTABLE ??= '1';
const tally = { passed: 0, failed: 0, skipped: 0 };
const stream = run({ files, concurrency, timeout: 600_000, isolation: 'process' });
stream.on('test:pass', (event) => {
  if (event.nesting === 0) {
    const name = event.file?.replace(root, '') ?? event.name;
    times.set(name, (times.get(name) ?? 0) + event.details.duration_ms);
  }
  if (event.details.type === 'suite' || isFile(event.name)) return;
  if (event.skip !== undefined && event.skip !== false) {
    tally.skipped++;
    process.stdout.write(`skipped: ${event.name}: ${event.skip === true ? 'no reason given' : event.skip}\n`);
  } else tally.passed++;
});
stream.on('test:fail', (event) => {
  const cause = event.details.error.cause as Error | undefined;
  // A suite fails because a test in it did; that one is counted.
  if (event.details.type === 'suite' && /subtest/.test(String(event.details.error.message))) return;
  if (isFile(event.name) && /subtest/.test(String(event.details.error.message))) return;
  tally.failed++;
  process.stdout.write(`FAILED: ${event.name} (${event.file?.replace(root, '')}:${event.line})\n`);
  process.stdout.write(`${indent(cause?.stack ?? cause?.message ?? event.details.error.message)}\n`);
});
stream.on('test:stderr', (event) => process.env.WEIR_TEST_OUTPUT && process.stdout.write(event.message));
stream.on('end', () => {
  if (timesAt >= 0)
    for (const [name, ms] of [...times].sort((a, b) => b[1] - a[1]).slice(0, 40))
      process.stdout.write(`${(ms / 1000).toFixed(1).padStart(6)} s  ${name}\n`);
  process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped\n`);
  process.exitCode = tally.failed > 0 || tally.passed === 0 ? 1 : 0;
});
stream.resume();

function isFile(name: string): boolean {
  return name.endsWith('.test.ts');
}

function indent(text: string): string {
  return text
    .split('\n')
    .slice(0, 30)
    .map((line) => `    ${line}`)
    .join('\n');
}
