import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hash32, maglevSize, maglevTable, slotsPerBackend, type WeightedBackend } from './maglev.ts';

const backends = (count: number, weight = 1): WeightedBackend[] =>
  Array.from({ length: count }, (_, i) => ({ name: `10.244.${i >> 8}.${i & 255} 8080`, weight }));

/** Weights of 0 to 8 under names that differ. */
const someBackends = fc
  .uniqueArray(fc.record({ host: fc.integer({ min: 1, max: 4000 }), weight: fc.integer({ min: 0, max: 8 }) }), {
    selector: (each) => each.host,
    maxLength: 30,
  })
  .map((list) => list.map(({ host, weight }) => ({ name: `10.0.${host >> 8}.${host & 255} 80`, weight })));

function counts(table: Uint32Array, of: number): number[] {
  const all = new Array<number>(of).fill(0);
  for (const index of table) all[index]!++;
  return all;
}

test('maglevTable() gives backends of one weight the same number of slots, to within one', () => {
  for (const count of [1, 2, 3, 10, 99, 100]) {
    const each = counts(maglevTable(backends(count), maglevSize(count)), count);
    assert.ok(Math.max(...each) - Math.min(...each) <= 1, `${count} backends: ${each.join()}`);
  }
});

test('maglevTable() gives each backend its share by weight, to within one and its part of what others lack', () => {
  fc.assert(
    fc.property(someBackends, (list) => {
      const size = maglevSize(list.length);
      const total = list.reduce((sum, each) => sum + each.weight, 0);
      const table = maglevTable(list, size);
      assert.equal(table.length, total === 0 ? 0 : size);
      if (total === 0) return;
      for (const [i, count] of counts(table, list.length).entries()) {
        const share = (size * list[i]!.weight) / total;
        // Every other backend may lack up to one slot of its share, and gets them in turns by weight, as all do.
        const most = 1 + (list.length * list[i]!.weight) / total;
        assert.ok(
          Math.abs(count - share) <= most,
          `weight ${list[i]!.weight} of ${total}: ${count} slots for ${share}`,
        );
      }
    }),
  );
});

test('maglevTable() does not depend on the order of the backends', () => {
  fc.assert(
    fc.property(someBackends, fc.integer(), (list, seed) => {
      const shuffled = [...list].sort((a, b) => hash32(a.name, seed) - hash32(b.name, seed));
      const size = maglevSize(list.length);
      const names = (order: readonly WeightedBackend[]) =>
        [...maglevTable(order, size)].map((index) => order[index]!.name).join();
      assert.equal(names(shuffled), names(list));
    }),
    { numRuns: 40 },
  );
});

/** The share of slots that moved from one backend that stays to another one that stays. */
function movedShare(before: Uint32Array, after: Uint32Array, gone: number): number {
  let moved = 0;
  for (let slot = 0; slot < before.length; slot++) {
    const now = after[slot]! >= gone ? after[slot]! + 1 : after[slot]!;
    if (before[slot] !== gone && before[slot] !== now) moved++;
  }
  return moved / before.length;
}

for (const [perBackend, most] of [
  [100, 0.02],
  [650, 0.01],
] as const)
  test(`maglevTable() moves at most ${most * 100} % of the others' slots when 1 of 100 backends leaves, at ${perBackend} each`, () => {
    const list = backends(100);
    let size = 100 * perBackend + 1;
    while ([...Array(Math.floor(Math.sqrt(size)) - 1).keys()].some((i) => size % (i + 2) === 0)) size++;
    const before = maglevTable(list, size);
    for (let gone = 0; gone < 100; gone += 7) {
      const share = movedShare(before, maglevTable(list.toSpliced(gone, 1), size), gone);
      assert.ok(share <= most, `backend ${gone}: ${share}`);
    }
  });

test('maglevTable() of the size that services get keeps that law, since one backend less changes no size', () => {
  assert.equal(maglevSize(100), maglevSize(99));
  const list = backends(100);
  const before = maglevTable(list, maglevSize(100));
  const after = maglevTable(list.slice(1), maglevSize(99));
  assert.ok(movedShare(before, after, 0) <= 0.02);
});

test('maglevTable() is the same on every node: a known table', () => {
  assert.equal(hash32([...maglevTable(backends(7), maglevSize(7))].join(), 0), 2_425_879_238);
});

test('maglevSize() is a prime with 100 slots for each backend, at least', () => {
  for (let count = 1; count <= 300; count++) {
    const size = maglevSize(count);
    assert.ok(size >= count * slotsPerBackend, `${count}: ${size}`);
    for (let d = 2; d * d <= size; d++) assert.notEqual(size % d, 0, `${count}: ${size} is a multiple of ${d}`);
  }
  assert.equal(maglevSize(0), 101);
});
