import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { KernelError } from '../../kernel/kernel-error.ts';
import { createKernelMap } from './kernel-map.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

/** A map in memory with room for so many entries; counts what is written to it. */
function fakeMap(existing: [number, number][] = [], maxEntries = 100) {
  const held = new Map<number, Uint8Array>(existing.map(([key, value]) => [key, bytes(value)]));
  const writes: string[] = [];
  const map = {
    name: 'fake',
    maxEntries,
    entries: () => [...held].map(([key, value]) => ({ key: bytes(key), value })),
    lookup: (key: Uint8Array) => held.get(key[0]!),
    update(key: Uint8Array, value: Uint8Array) {
      if (!held.has(key[0]!) && held.size >= map.maxEntries)
        throw new KernelError('bpf', 7, 'MAP_UPDATE_ELEM', { mapFull: true });
      writes.push(`put ${key[0]}=${value[0]}`);
      held.set(key[0]!, value);
    },
    updateBatch(entries: readonly { key: Uint8Array; value: Uint8Array }[]) {
      writes.push(`together ${entries.map(({ key, value }) => `${key[0]}=${value[0]}`).join(' ')}`);
      for (const { key, value } of entries) held.set(key[0]!, value);
      return entries.length;
    },
    delete(key: Uint8Array) {
      writes.push(`delete ${key[0]}`);
      return held.delete(key[0]!);
    },
  };
  return { held, writes, fake: map, map: map as unknown as BpfMap };
}

test('what is there already is adopted: the same is not written, the changed is, the rest goes with prune()', () => {
  const { map, writes, held } = fakeMap([
    [1, 10],
    [2, 20],
    [3, 30],
  ]);
  const kernel = createKernelMap(map);
  kernel.put(bytes(1), bytes(10), 'a');
  kernel.put(bytes(2), bytes(21), 'b');
  kernel.put(bytes(4), bytes(40), 'd');
  assert.deepEqual(writes, ['put 2=21', 'put 4=40']);
  assert.ok(held.has(3), 'nothing goes before everything has been put');
  kernel.prune();
  kernel.prune();
  assert.deepEqual(writes.slice(2), ['delete 3']);
  assert.deepEqual(kernel.status().adopted, { same: 1, changed: 1, added: 1, pruned: 1 });
  assert.equal(kernel.status().rows, 3);
});

test('a row that does not fit waits with its error, holds up nobody and is tried again', () => {
  const { map, fake } = fakeMap([], 2);
  const kernel = createKernelMap(map, { nowMs: () => 77 });
  assert.equal(kernel.put(bytes(1), bytes(1), 'a'), true);
  assert.equal(kernel.put(bytes(2), bytes(1), 'b'), true);
  assert.equal(kernel.put(bytes(3), bytes(1), 'c'), false);
  assert.deepEqual(kernel.status().failing, [
    { row: 'c', error: 'the map is full (2 entries)', attempts: 1, sinceMs: 77 },
  ]);
  assert.equal(kernel.retry(), true);
  assert.equal(kernel.status().failing[0]?.attempts, 2);
  kernel.put(bytes(1), bytes(5), 'a');
  assert.equal(kernel.status().rows, 2);
  fake.maxEntries = 3;
  assert.equal(kernel.retry(), false);
  assert.deepEqual([kernel.status().rows, kernel.status().failing.length], [3, 0]);
});

test('a failing row that is put right or removed is not tried with its old content', () => {
  const { map, held, fake } = fakeMap([], 1);
  const kernel = createKernelMap(map);
  kernel.put(bytes(1), bytes(1), 'a');
  kernel.put(bytes(2), bytes(1), 'b');
  kernel.put(bytes(2), bytes(9), 'b');
  kernel.put(bytes(3), bytes(1), 'c');
  kernel.remove(bytes(3), 'c');
  fake.maxEntries = 10;
  kernel.retry();
  assert.deepEqual(
    [...held].map(([key, value]) => [key, value[0]]),
    [
      [1, 1],
      [2, 9],
    ],
  );
});

test('whatever is put and removed, the map holds it, and the count of rows is right', () => {
  const step = fc.record({
    action: fc.constantFrom('put', 'remove', 'prune', 'retry'),
    key: fc.integer({ min: 0, max: 6 }),
    value: fc.integer({ min: 0, max: 2 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { map, held, fake } = fakeMap(
        [
          [0, 0],
          [1, 1],
        ],
        4,
      );
      const kernel = createKernelMap(map);
      const wanted = new Map<number, number>();
      for (const { action, key, value } of steps) {
        if (action === 'put') {
          kernel.put(bytes(key), bytes(value), 'row');
          wanted.set(key, value);
        } else if (action === 'remove') {
          kernel.remove(bytes(key), 'row');
          wanted.delete(key);
        } else if (action === 'prune') kernel.prune();
        else kernel.retry();
        assert.equal(kernel.status().rows, held.size, `after ${action} ${key}`);
      }
      kernel.prune();
      fake.maxEntries = 100;
      kernel.retry();
      assert.deepEqual(
        new Map([...held].map(([key, value]) => [key, value[0]!] as const).sort()),
        new Map([...wanted].sort()),
      );
    }),
    { numRuns: 300 },
  );
});

test('forget() drops what failed for a key', () => {
  const { map, held, fake } = fakeMap([], 1);
  const kernel = createKernelMap(map);
  kernel.put(bytes(1), bytes(1), 'a');
  kernel.put(bytes(2), bytes(1), 'b');
  kernel.forget(bytes(2));
  fake.maxEntries = 10;
  assert.equal(kernel.retry(), false);
  assert.deepEqual([...held.keys()], [1]);
});

test('replaceTogether() writes in one call what is there and differs, and nothing else', () => {
  const { map, writes } = fakeMap([
    [1, 10],
    [2, 20],
    [3, 30],
  ]);
  const kernel = createKernelMap(map);
  const row = (key: number, value: number) => ({ key: bytes(key), value: bytes(value) });
  kernel.replaceTogether([row(1, 11), row(2, 20), row(3, 31), row(4, 41)]);
  assert.deepEqual(writes, ['together 1=11 3=31']);
  kernel.put(bytes(1), bytes(11), 'a');
  assert.deepEqual(kernel.status().adopted, { same: 0, changed: 1, added: 0, pruned: 0 });
  kernel.replaceTogether([row(3, 32)]);
  assert.equal(writes.length, 2, 'one row alone has nobody to be written with');
});
