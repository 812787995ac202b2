import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { createFileSink } from './file-sink.ts';
import { events, until } from './testdata/receivers.ts';

const never = new AbortController().signal;

function scene(t: TestContext, rotate: object = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-file-'));
  t.after(async () => {
    await sink.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const path = join(folder, 'logs', 'flows.jsonl');
  const now = { ms: Date.UTC(2026, 0, 1) };
  const errors: string[] = [];
  const settings = { megabytes: 100, keep: 10, gzip: true, ...rotate };
  const sink = createFileSink(
    { path, rotate: settings },
    (message) => errors.push(message),
    () => now.ms,
  );
  const names = () => readdirSync(join(folder, 'logs')).sort();
  return { sink, path, now, errors, names, folder: join(folder, 'logs') };
}

const numbers = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { n: number }).n);

test('a line for each event', async (t) => {
  const { sink, path } = scene(t);
  await sink.send(events(2), never);
  await sink.send(events(1, 3), never);
  assert.deepEqual(numbers(readFileSync(path, 'utf8')), [1, 2, 3]);
});

test('files are moved aside by size, compressed, and at most so many kept; nothing is missing in those', async (t) => {
  const { sink, path, now, names, folder, errors } = scene(t, { megabytes: 0.0001, keep: 3 });
  for (let i = 1; i <= 60; i += 3) {
    now.ms += 1_000;
    await sink.send(events(3, i), never);
  }
  await sink.close();
  assert.deepEqual(errors, []);
  const old = names().filter((name) => name !== 'flows.jsonl');
  assert.equal(old.length, 3);
  assert.ok(
    old.every((name) => name.endsWith('.jsonl.gz')),
    old.join(),
  );
  const all = [
    ...old.map((name) => gunzipSync(readFileSync(join(folder, name))).toString()),
    readFileSync(path, 'utf8'),
  ];
  const found = all.flatMap(numbers);
  assert.deepEqual(
    found,
    Array.from({ length: found.length }, (_, i) => 61 - found.length + i),
  );
});

test('a file is moved aside when it is old', async (t) => {
  const { sink, now, names } = scene(t, { hours: 1, gzip: false });
  await sink.send(events(1), never);
  now.ms += 3_600_001;
  await sink.send(events(1, 2), never);
  assert.equal(names().length, 2);
});

test('a file that was moved away is made anew; so it is after reopen()', async (t) => {
  const { sink, path } = scene(t);
  await sink.send(events(1), never);
  renameSync(path, `${path}.away`);
  await sink.send(events(1, 2), never);
  assert.deepEqual(numbers(readFileSync(path, 'utf8')), [2]);
  sink.reopen!();
  await sink.send(events(1, 3), never);
  assert.deepEqual(numbers(readFileSync(path, 'utf8')), [2, 3]);
});

test('half a line of a run before does not spoil the next', async (t) => {
  const { sink, path } = scene(t);
  await sink.send(events(1), never);
  await sink.close();
  appendFileSync(path, '{"n":');
  await sink.send(events(1, 2), never);
  assert.deepEqual(readFileSync(path, 'utf8'), '{"n":1}\n{"n":\n{"n":2}\n');
});

test('compressing goes on in the background', async (t) => {
  const { sink, names } = scene(t, { megabytes: 0.00001 });
  await sink.send(events(2), never);
  await sink.send(events(2, 3), never);
  await until('the old file is compressed', () => names().some((name) => name.endsWith('.gz')));
});

const root = process.getuid?.() === 0 ? false : 'needs root';

test('a disk that is full tears a line, and spoils none after it', { skip: root }, async (t) => {
  const { sink, path, folder } = scene(t);
  mkdirSync(folder);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', folder]);
  try {
    const filler = join(folder, 'filler');
    writeFileSync(filler, Buffer.alloc(8 << 10));
    await sink.send(events(1), never);
    const long = [{ ...events(1, 2)[0]!, body: JSON.stringify({ n: 2, text: 'x'.repeat(10_000) }) }];
    await assert.rejects(sink.send(long, never), { code: 'ENOSPC' });
    rmSync(filler);
    await sink.send(events(1, 3), never);
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    assert.equal(lines.length, 3);
    assert.deepEqual([lines[0], lines[2]], ['{"n":1}', '{"n":3}']);
  } finally {
    await sink.close();
    execFileSync('umount', [folder]);
  }
});
