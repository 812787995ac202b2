import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type DiskQueue, openQueue } from './disk-queue.ts';

const runs = Number(process.env.WEIR_PROPERTY_RUNS ?? 60);

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-queue-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function push(queue: DiskQueue, from: number, count: number, size = 20): void {
  for (let i = from; i < from + count; i++)
    queue.push({ timeMs: i, id: `id-${i}`, key: 'k', kind: 'flow', body: `${i} ${'ü'.repeat(size)}` });
  queue.flush();
}

const numberOf = (event: { body: string }) => Number(event.body.split(' ')[0]);

/** Takes and acknowledges everything there is. */
function drain(queue: DiskQueue): { numbers: number[]; lost: number } {
  const numbers: number[] = [];
  let lost = 0;
  for (;;) {
    const batch = queue.take(7, 500);
    if (batch.events.length === 0) return { numbers, lost };
    numbers.push(...batch.events.map(numberOf));
    lost += batch.lost;
    queue.acknowledge(batch.lastSeq);
  }
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const segmentsOf = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.events'))
    .sort();

test('openQueue() gives back what was added, in order, with every field', (t) => {
  const queue = openQueue(folderOf(t), { maxBytes: 1 << 20 });
  push(queue, 1, 3);
  const { events, lost } = queue.take(10, 1 << 20);
  assert.deepEqual(events[1], { seq: 2, timeMs: 2, id: 'id-2', key: 'k', kind: 'flow', body: `2 ${'ü'.repeat(20)}` });
  assert.deepEqual([events.map(numberOf), lost], [[1, 2, 3], 0]);
  assert.deepEqual(queue.take(10, 1 << 20).events, [], 'nothing is taken twice');
});

test('openQueue() after a stop goes on behind what was acknowledged, and keeps no segment that is done', (t) => {
  const folder = folderOf(t);
  let queue = openQueue(folder, { maxBytes: 1 << 20 });
  push(queue, 1, 100);
  queue.acknowledge(queue.take(40, 1 << 20).lastSeq);
  queue.take(20, 1 << 20);
  queue.close();
  queue = openQueue(folder, { maxBytes: 1 << 20 });
  assert.deepEqual(drain(queue), { numbers: range(41, 101), lost: 0 });
  queue.close();
  assert.deepEqual(segmentsOf(folder), []);
  queue = openQueue(folder, { maxBytes: 1 << 20 });
  push(queue, 101, 1);
  assert.deepEqual(drain(queue), { numbers: [101], lost: 0 });
});

test('a full queue gives up the oldest, and says exactly how many where they are missing', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 16_384 });
  push(queue, 1, 1);
  const inFlight = queue.take(1, 1 << 20);
  for (let i = 2; i <= 2_000; i++) push(queue, i, 1);
  assert.ok(queue.status.bytes <= 16_384);
  assert.ok(readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) <= 17_000);
  queue.acknowledge(inFlight.lastSeq);
  const { numbers, lost } = drain(queue);
  assert.equal(numbers.length + lost + 1, 2_000);
  assert.equal(lost, queue.status.lost);
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  assert.equal(numbers.at(-1), 2_000);
});

test('what was given up before a kill is counted after it', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 16_384 });
  for (let i = 1; i <= 1_000; i++) push(queue, i, 1);
  const { lost: givenUp } = queue.status;
  assert.ok(givenUp > 0);
  // Not closed: as after a kill.
  const { numbers, lost } = drain(openQueue(folder, { maxBytes: 16_384 }));
  assert.deepEqual([lost, numbers.length], [givenUp, 1_000 - givenUp]);
});

test('what is lost twice is counted once, and what waits beside it is known', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 16_384 });
  push(queue, 1, 2);
  // Has a number and no bytes, in a file that is given up afterwards.
  queue.push({ timeMs: 3, id: 'x'.repeat(70_000), key: 'k', kind: 'flow', body: '3 ' });
  push(queue, 4, 1);
  assert.deepEqual([queue.status.lost, queue.status.events], [1, 3]);
  for (let i = 5; i <= 2_000; i++) push(queue, i, 1);
  const { lost, events } = queue.status;
  assert.ok(lost > 3);
  assert.equal(lost + events, 2_000);
  const batch = queue.take(5, 1 << 20);
  assert.deepEqual([queue.status.lost, queue.status.events], [lost, events], 'what is being sent waits');
  queue.acknowledge(batch.lastSeq);
  assert.deepEqual([queue.status.lost, queue.status.events], [lost, events - batch.events.length]);
  queue.close();
  const again = openQueue(folder, { maxBytes: 16_384 });
  assert.deepEqual([again.status.lost, again.status.events], [0, events - batch.events.length]);
  assert.equal(drain(again).numbers.length, events - batch.events.length);
});

test('an event that tells of losses loses none of them when it is given up itself', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 16_384 });
  const tell = (tellsOf: number) => queue.push({ timeMs: 0, id: '', key: '', kind: 'lost', body: '0', tellsOf });
  push(queue, 1, 1);
  tell(1_000);
  push(queue, 2, 1);
  tell(50);
  queue.flush();
  assert.deepEqual([queue.status.lost, queue.status.events], [0, 4 + 1_050]);
  const { events, lost, lastSeq } = queue.take(2, 1 << 20);
  assert.deepEqual([events.map((each) => each.tellsOf), lost], [[undefined, 1_000], 0]);
  queue.acknowledge(lastSeq);
  assert.equal(queue.status.events, 2 + 50);
  for (let i = 3; i <= 2_000; i++) push(queue, i, 1);
  queue.close();
  const again = openQueue(folder, { maxBytes: 16_384 });
  const rest = drain(again);
  assert.equal(rest.numbers.length + rest.lost, 1_999 + 1 + 50);
  assert.equal(again.status.lost, rest.lost);
});

test('an event larger than any record is lost and counted; its neighbours are not', (t) => {
  const queue = openQueue(folderOf(t), { maxBytes: 64 << 20 });
  push(queue, 1, 1);
  queue.push({ timeMs: 0, id: '', key: '', kind: 'flow', body: 'x'.repeat(5 << 20) });
  push(queue, 3, 1);
  assert.deepEqual(drain(queue), { numbers: [1, 3], lost: 1 });
});

test('a queue without a place to write loses what comes, counts it, and goes on when there is one', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 1 << 20 });
  rmSync(folder, { recursive: true });
  push(queue, 1, 5);
  assert.match(queue.status.error ?? '', /ENOENT/);
  t.after(() => queue.close());
  assert.equal(queue.status.lost, 5);
});

test('files cut or overwritten anywhere: nothing crashes, order stays, and lost plus read is what was written', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.nat(),
      fc.nat(),
      fc.boolean(),
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      (count, which, where, cut, rubbish) => {
        const folder = folderOf(t);
        const queue = openQueue(folder, { maxBytes: 1 << 16 });
        for (let i = 1; i <= count; i++) push(queue, i, 1);
        const given = queue.status.lost;
        const names = segmentsOf(folder);
        const path = join(folder, names[which % names.length]!);
        const size = statSync(path).size;
        if (cut) truncateSync(path, where % size);
        else {
          const bytes = readFileSync(path);
          bytes.set(rubbish.slice(0, size - (where % size)), where % size);
          writeFileSync(path, bytes);
        }
        const again = openQueue(folder, { maxBytes: 1 << 16 });
        push(again, count + 1, 1);
        const { numbers, lost } = drain(again);
        assert.ok(lost >= given);
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
        );
        assert.equal(numbers.at(-1), count + 1);
        const inLast = path.endsWith(names.at(-1)!);
        // How many were behind a cut in the last file nobody can know; elsewhere the next file's name tells.
        if (!inLast) assert.equal(numbers.length + lost, count + 1);
        else assert.ok(numbers.length + lost <= count + 1);
        again.close();
        queue.close();
        rmSync(folder, { recursive: true });
      },
    ),
    { numRuns: runs },
  );
});

test('a position file that cannot be read means that all is sent again', (t) => {
  const folder = folderOf(t);
  const queue = openQueue(folder, { maxBytes: 1 << 20 });
  push(queue, 1, 10);
  queue.acknowledge(queue.take(5, 1 << 20).lastSeq);
  writeFileSync(join(folder, 'position.json'), '{"ackno');
  assert.deepEqual(drain(openQueue(folder, { maxBytes: 1 << 20 })), { numbers: range(1, 11), lost: 0 });
});

test('processes killed at any moment: what they said was flushed is there, in order, once nothing repeats', async (t) => {
  const folder = folderOf(t);
  const program = `
    import { openQueue } from ${JSON.stringify(new URL('./disk-queue.ts', import.meta.url).href)};
    import { writeSync } from 'node:fs';
    const queue = openQueue(${JSON.stringify(folder)}, { maxBytes: 1 << 26 });
    let next = Number(process.argv[1]);
    for (;;) {
      for (let i = 0; i < 5; i++, next++)
        queue.push({ timeMs: next, id: '', key: '', kind: 'flow', body: next + ' ' + 'x'.repeat(300) });
      queue.flush();
      const batch = queue.take(3, 1 << 20);
      writeSync(1, 'flushed ' + (next - 1) + '\\n' + batch.events.map((each) => 'sent ' + parseInt(each.body) + '\\n').join(''));
      queue.acknowledge(batch.lastSeq);
    }`;
  const sent = new Set<number>();
  let flushed = 0;
  let start = 1;
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, String(start)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (part) => {
      output += part;
    });
    await once(child.stdout, 'data');
    await new Promise((resolve) => setTimeout(resolve, 20 + 30 * Math.random()));
    child.kill('SIGKILL');
    await once(child, 'close');
    for (const line of output.split('\n').slice(0, -1)) {
      const [what, number] = line.split(' ');
      if (what === 'flushed') flushed = Number(number);
      else sent.add(Number(number));
    }
    // The one that was killed may have flushed more than it had time to say.
    start = flushed + 100;
    for (let i = flushed + 1; i < start; i++) sent.add(i);
  }
  const queue = openQueue(folder, { maxBytes: 1 << 26 });
  const { numbers, lost } = drain(queue);
  queue.close();
  assert.deepEqual(
    numbers,
    numbers.toSorted((a, b) => a - b),
  );
  const all = new Set([...sent, ...numbers]);
  const missing = range(1, flushed + 1).filter((each) => !all.has(each));
  assert.ok(missing.length <= lost, `${missing.length} events are missing, ${lost} were counted`);
  assert.deepEqual(missing, []);
});
