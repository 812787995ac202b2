import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { openQueue } from './disk-queue.ts';
import type { QueuedEvent } from './queue-record.ts';
import { startSending } from './send-loop.ts';
import { allArrived, BatchRefused, ReceiverBusy, type SendResult, type Sink } from './sink.ts';
import { until } from './testdata/receivers.ts';

function scene(t: TestContext, send: Sink['send'], options: { maxBytes?: number; timeoutMs?: number } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-loop-'));
  const queue = openQueue(folder, { maxBytes: options.maxBytes ?? 1 << 22 });
  const errors: string[] = [];
  const loop = startSending({
    queue,
    sink: { send, close() {} },
    batch: { events: 10, bytes: 1 << 16, waitMs: 0 },
    timeoutMs: options.timeoutMs ?? 5_000,
    onLost: (count, next) => ({ ...next, kind: 'lost', body: `lost ${count}` }),
    onError: (message) => errors.push(message),
    firstPauseMs: 1,
    longestPauseMs: 4,
  });
  t.after(async () => {
    await loop.close();
    queue.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const push = (from: number, to: number, size = 0) => {
    for (let i = from; i <= to; i++)
      queue.push({ timeMs: i, id: String(i), key: '', kind: 'flow', body: `${i} ${'x'.repeat(size)}` });
    queue.flush();
  };
  return { loop, queue, errors, push, folder };
}

const idle = (queue: { status: { events: number } }) => () => queue.status.events === 0;

test('a receiver that fails in any way gets each event once it may have it; what it can never have is counted', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('ok', 'throw', 'busy', 'some', 'bad', 'refuse'), { maxLength: 30 }),
      fc.integer({ min: 1, max: 60 }),
      async (script, count) => {
        const arrived: string[] = [];
        const steps = [...script];
        const send = async (batch: readonly QueuedEvent[]): Promise<SendResult> => {
          const ids = batch.map((each) => each.id);
          switch (steps.shift()) {
            case 'throw':
              throw new Error('no connection');
            case 'busy':
              throw new ReceiverBusy('429', 1);
            case 'bad':
              throw new BatchRefused('400');
            case 'some': {
              const half = batch.length >> 1;
              arrived.push(...ids.slice(0, half));
              return { again: batch.slice(half), refused: 0, why: '429' };
            }
            case 'refuse':
              arrived.push(...ids.slice(1));
              return { again: [], refused: 1, why: '400' };
            default:
              arrived.push(...ids);
              return allArrived;
          }
        };
        const { loop, queue, push } = scene(t, send);
        push(1, count);
        await until('all is done', idle(queue));
        assert.equal(new Set(arrived).size, arrived.length, 'nothing twice');
        assert.equal(arrived.length + loop.counts.refused, count);
        assert.equal(loop.counts.sent, arrived.length);
        assert.deepEqual(
          arrived.map(Number),
          arrived.map(Number).toSorted((a, b) => a - b),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test('a batch with one bad event is halved until only that one is given up', async (t) => {
  const arrived: string[] = [];
  const { loop, queue, push } = scene(t, async (batch) => {
    if (batch.some((each) => each.id === '7')) throw new BatchRefused('one of them is bad');
    arrived.push(...batch.map((each) => each.id));
    return allArrived;
  });
  push(1, 10);
  await until('all is done', idle(queue));
  assert.deepEqual(arrived, ['1', '2', '3', '4', '5', '6', '8', '9', '10']);
  assert.deepEqual([loop.counts.refused, loop.refusal?.message], [1, 'one of them is bad']);
});

test('what an event of loss tells of is told once it has arrived, and refused with it', async (t) => {
  const results: (() => SendResult)[] = [
    () => {
      throw new BatchRefused('400');
    },
    () => ({ again: [], refused: 1, why: '400' }),
    () => allArrived,
  ];
  const { loop, queue } = scene(t, async () => results.shift()!());
  const counts: number[][] = [];
  for (const tellsOf of [5, 7, 11]) {
    queue.push({ timeMs: 1, id: '', key: '', kind: 'lost', body: '', tellsOf });
    queue.flush();
    await until('all is done', idle(queue));
    const { sent, refused, told } = loop.counts;
    counts.push([sent, refused, told]);
  }
  assert.deepEqual(counts, [
    [0, 6, 0],
    [0, 14, 0],
    [1, 14, 11],
  ]);
});

test('a receiver that hangs is left after its time, and fills only its own queue; what was given up is told to it', async (t) => {
  let hang = true;
  const bodies: string[] = [];
  const { loop, queue, push, errors } = scene(
    t,
    (batch) => {
      if (hang) return new Promise(() => {});
      bodies.push(...batch.map((each) => each.body));
      return Promise.resolve(allArrived);
    },
    { maxBytes: 8_192, timeoutMs: 30 },
  );
  push(1, 1);
  await until('it hangs', () => loop.failure !== undefined);
  assert.match(errors[0]!, /no answer within 0.03 s/);
  const began = performance.now();
  for (let i = 2; i <= 1_000; i++) push(i, i, 100);
  assert.ok(performance.now() - began < 5_000);
  assert.ok(queue.status.bytes <= 8_192);
  hang = false;
  await until('all is done', idle(queue));
  const lost = bodies.filter((each) => each.startsWith('lost')).map((each) => Number(each.split(' ')[1]));
  assert.equal(
    bodies.length - lost.length + lost.reduce((sum, each) => sum + each, 0),
    1_000,
    'what arrived and what is said to be lost is everything',
  );
  assert.ok(lost.length > 0);
  assert.equal(loop.failure, undefined);
});

test('a receiver’s Retry-After is waited for', async (t) => {
  const times: number[] = [];
  const { queue, push } = scene(t, async () => {
    times.push(performance.now());
    if (times.length === 1) throw new ReceiverBusy('429', 300);
    return allArrived;
  });
  push(1, 1);
  await until('all is done', idle(queue));
  assert.ok(times[1]! - times[0]! >= 290);
});

test('a queue that cannot be read ends sending, and that is said', async (t) => {
  const { queue, loop, errors, push } = scene(t, async () => allArrived);
  queue.take = () => {
    throw new Error('EIO');
  };
  push(1, 1);
  await until('it is known', () => loop.failure !== undefined);
  assert.match(loop.failure!.message, /sending ended: Error: EIO/);
  assert.equal(errors.length, 1);
});
