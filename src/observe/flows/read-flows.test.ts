import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FlowRow } from './flow-row.ts';
import { type Loss, LossSource } from './loss-log.ts';
import { type FlowQuery, type FlowSink, readFlows } from './read-flows.ts';
import { copyOfRow } from './ring-row.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const all: FlowQuery = { number: 0, first: false, follow: false, match: () => true };
const startUs = Date.UTC(2026, 0, 1) * 1000;

/** A scene with `count` flows, one a second from second 0. */
function filled(count: number, capacity = 64) {
  const scene = createScene(capacity);
  const add = (from: number, to: number) => {
    for (let i = from; i < to; i++)
      scene.record(makeEvent({ from: addresses.far, to: addresses.db, sport: i, timeNs: BigInt(i) * 1_000_000_000n }));
  };
  add(0, count);
  return { ...scene, add };
}

type FlowItem = { readonly kind: 'flow'; readonly row: FlowRow } | { readonly kind: 'lost'; readonly loss: Loss };

/** Pieces of `most` items. */
function itemSink(most: number): FlowSink<FlowItem[]> {
  let items: FlowItem[] = [];
  return {
    flow: (row) => items.push({ kind: 'flow', row: copyOfRow(row) }),
    lost: (loss) => items.push({ kind: 'lost', loss }),
    get isFull() {
      return items.length >= most;
    },
    take() {
      const piece = items.length === 0 ? undefined : items;
      items = [];
      return piece;
    },
  };
}

/** One item after another. */
async function* itemsOf(
  scene: ReturnType<typeof createScene>,
  query: FlowQuery,
  signal: AbortSignal,
  most = 1,
): AsyncGenerator<FlowItem, void> {
  for await (const piece of readFlows(scene.ring, scene.losses, query, itemSink(most), signal)) yield* piece;
}

async function read(
  scene: ReturnType<typeof createScene>,
  query: Partial<FlowQuery>,
  most = Number.POSITIVE_INFINITY,
  piece = 1,
): Promise<string[]> {
  const stop = new AbortController();
  const told: string[] = [];
  for await (const item of itemsOf(scene, { ...all, ...query }, stop.signal, piece)) {
    told.push(item.kind === 'flow' ? String(item.row.sourcePort) : `lost ${item.loss.count} at ${item.loss.source}`);
    if (told.length >= most) break;
  }
  return told;
}

test('readFlows() gives all, the last, or the first that match', async () => {
  const scene = filled(10);
  assert.equal((await read(scene, {})).length, 10);
  assert.deepEqual(await read(scene, { number: 3 }), ['7', '8', '9']);
  assert.deepEqual(await read(scene, { number: 3, first: true }), ['0', '1', '2']);
  assert.deepEqual(await read(scene, { number: 2, match: (row) => row.sourcePort % 2 === 0 }), ['6', '8']);
  assert.deepEqual(await read(scene, { number: 100 }), await read(scene, {}));
});

test('readFlows() keeps to a time, both ends included', async () => {
  const scene = filled(10);
  const sinceUs = startUs + 3e6;
  const untilUs = startUs + 5e6;
  assert.deepEqual(await read(scene, { sinceUs }), ['3', '4', '5', '6', '7', '8', '9']);
  assert.deepEqual(await read(scene, { sinceUs, untilUs }), ['3', '4', '5']);
  assert.deepEqual(await read(scene, { untilUs, number: 2 }), ['4', '5']);
  assert.deepEqual(await read(scene, { sinceUs, number: 2, first: true }), ['3', '4']);
  assert.deepEqual(await read(scene, { sinceUs, follow: true, untilUs }), ['3', '4', '5']);
});

test('readFlows() follows: new flows only, or after the last ones', async () => {
  const scene = filled(10);
  const live = read(scene, { follow: true }, 2);
  const after = read(scene, { follow: true, number: 2 }, 4);
  await new Promise(setImmediate);
  scene.add(10, 12);
  assert.deepEqual(await live, ['10', '11']);
  assert.deepEqual(await after, ['8', '9', '10', '11']);
});

test('readFlows() tells a reader that was overtaken exactly how many flows it missed', async () => {
  const scene = filled(4, 8);
  const reader = itemsOf(scene, { ...all, first: true, follow: true }, new AbortController().signal);
  assert.equal((await reader.next()).value?.kind, 'flow');
  scene.add(4, 30);
  const seen: number[] = [];
  let lost = 0;
  while (seen.at(-1) !== 29) {
    const item = (await reader.next()).value!;
    if (item.kind === 'flow') seen.push(item.row.sourcePort);
    else {
      assert.equal(item.loss.source, LossSource.slowReader);
      lost += item.loss.count;
    }
  }
  assert.equal(1 + lost + seen.length, 30);
  assert.equal(scene.losses.total(LossSource.slowReader), lost);
  assert.equal(scene.ring.next - scene.ring.oldest, 8);
});

test('readFlows() tells losses where they happened, to every reader whose part they are in', async () => {
  const scene = filled(3);
  scene.losses.add(LossSource.kernelRing, 5, scene.ring.next, 1);
  scene.losses.add(LossSource.kernelRing, 2, scene.ring.next, 2);
  scene.add(3, 5);
  scene.losses.add(LossSource.heldBack, 9, scene.ring.next, 3);
  assert.deepEqual(await read(scene, {}), ['0', '1', '2', 'lost 7 at 1', '3', '4', 'lost 9 at 2']);
  assert.deepEqual(await read(scene, { number: 1 }), ['4', 'lost 9 at 2']);
});

test('readFlows() counts losses whole for a reader that waits, even when the log forgot entries', async () => {
  const scene = filled(1);
  const reader = itemsOf(scene, { ...all, follow: true }, new AbortController().signal);
  const first = reader.next();
  await new Promise(setImmediate);
  scene.losses.add(LossSource.kernelRing, 1, scene.ring.next, 0);
  scene.ring.announce();
  assert.equal((await first).value?.kind, 'lost');
  for (let i = 0; i < 3000; i++) scene.losses.add(LossSource.kernelRing, 2, scene.ring.next, 10_000 + i * 2000);
  scene.add(1, 2);
  let lost = 0;
  for (;;) {
    const item = (await reader.next()).value!;
    if (item.kind === 'flow') break;
    lost += item.loss.count;
  }
  assert.equal(lost, 6000);
});

test('readFlows() tells a reader what is lost after it came, also where others were told to have lost something before', async () => {
  const scene = filled(1);
  scene.losses.add(LossSource.kernelRing, 3, scene.ring.next, 0);
  const next = itemsOf(scene, { ...all, follow: true }, new AbortController().signal).next();
  await new Promise(setImmediate);
  scene.losses.add(LossSource.kernelRing, 4, scene.ring.next, 1);
  scene.ring.announce();
  const { value } = await next;
  assert.deepEqual(value?.kind === 'lost' && value.loss.count, 4);
});

test('readFlows() ends when its reader goes', async () => {
  const scene = filled(0);
  const stop = new AbortController();
  const done = itemsOf(scene, { ...all, follow: true }, stop.signal).next();
  stop.abort();
  assert.equal((await done).done, true);
});

test('readFlows() hands on what was found before a filter failed', async () => {
  const scene = filled(3);
  const match = (row: FlowRow) => {
    if (row.sourcePort === 2) throw new Error('too dear');
    return true;
  };
  const reader = itemsOf(scene, { ...all, match }, new AbortController().signal, 10);
  const told = [(await reader.next()).value, (await reader.next()).value];
  assert.deepEqual(
    told.map((item) => item?.kind),
    ['flow', 'flow'],
  );
  await assert.rejects(reader.next(), /too dear/);
});

test('readFlows() gives the same in pieces of any size', async () => {
  const scene = filled(40, 16);
  scene.losses.add(LossSource.kernelRing, 5, scene.ring.next - 3, 1);
  const whole = await read(scene, { first: true });
  assert.equal(whole.length, 17);
  for (const piece of [2, 7, 100]) assert.deepEqual(await read(scene, { first: true }, undefined, piece), whole);
});
