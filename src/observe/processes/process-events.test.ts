import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createProcessEvents, type ProcessItem } from './process-events.ts';
import type { ProcessRow } from './process-row.ts';

const exec = (name: string, timeMs = 0) => ({ kind: 'exec', timeMs, process: { binary: name } as ProcessRow }) as const;
const lost = (count: number, timeMs = 0) => ({ kind: 'lost', timeMs, count }) as const;
const text = (item: ProcessItem) => ('process' in item ? item.process.binary : `${item.kind} ${item.count}`);
const all = { number: 0, follow: false, match: () => true };

function scene(capacity?: number) {
  const events = createProcessEvents(capacity);
  const stop = new AbortController();
  const read = async (query: Partial<Parameters<typeof events.read>[0]>) => {
    const got: string[] = [];
    for await (const item of events.read({ ...all, ...query }, stop.signal)) got.push(text(item));
    return got;
  };
  return { events, stop, read };
}

test('read() gives what is kept, losses in their place', async () => {
  const { events, read } = scene();
  for (const each of [exec('a'), lost(3), exec('b')]) events.add(each);
  assert.deepEqual(await read({}), ['a', 'lost 3', 'b']);
});

test('read() counts only what matches, and leaves losses to all', async () => {
  const { events, read } = scene();
  for (const each of [exec('a'), exec('x'), lost(3), exec('b'), exec('x')]) events.add(each);
  const match = ({ process }: { process: ProcessRow }) => process.binary !== 'x';
  assert.deepEqual(await read({ number: 1, match }), ['b']);
  assert.deepEqual(await read({ number: 2, match }), ['a', 'lost 3', 'b']);
  assert.deepEqual(await read({ number: 9 }), ['a', 'x', 'lost 3', 'b', 'x']);
});

test('read() keeps to since', async () => {
  const { events, read } = scene();
  for (const each of [exec('a', 1), lost(3, 1), exec('b', 2)]) events.add(each);
  assert.deepEqual(await read({ sinceMs: 2 }), ['b']);
  assert.deepEqual(await read({ sinceMs: 2, number: 5 }), ['b']);
});

test('read() of what was overwritten begins with the oldest there is', async () => {
  const { events, read } = scene(2);
  for (const each of [exec('a'), exec('b'), exec('c')]) events.add(each);
  assert.deepEqual(await read({}), ['b', 'c']);
});

test('a reader that follows is told what came, and how much it missed', async () => {
  const { events, stop } = scene(2);
  const reader = events.read({ ...all, follow: true }, stop.signal);
  events.add(exec('before'));
  const first = reader.next();
  events.add(exec('a'));
  assert.equal(text((await first).value!), 'a');
  for (const each of ['b', 'c', 'd', 'e']) events.add(exec(each));
  const rest: string[] = [];
  for (let i = 0; i < 3; i++) rest.push(text((await reader.next()).value!));
  assert.deepEqual(rest, ['overwritten 2', 'd', 'e']);
  for (const each of [exec('f'), lost(5), exec('g'), lost(7), exec('h'), exec('i')]) events.add(each);
  rest.length = 0;
  for (let i = 0; i < 4; i++) rest.push(text((await reader.next()).value!));
  assert.deepEqual(rest, ['lost 12', 'overwritten 2', 'h', 'i'], 'what told of losses is no event');
  const end = reader.next();
  stop.abort();
  assert.equal((await end).done, true);
});
