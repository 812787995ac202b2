import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSlotRanges } from './slot-ranges.ts';

function make(capacity = 64) {
  const clock = { ms: 0 };
  return { clock, ranges: createSlotRanges({ capacity, align: 16, restMs: 1000, nowMs: () => clock.ms }) };
}

test('createSlotRanges() gives aligned ranges until there is no room', () => {
  const { ranges } = make();
  assert.deepEqual([ranges.take(1), ranges.take(17), ranges.take(16), ranges.take(1)], [0, 16, 48, undefined]);
  assert.equal(ranges.used, 64);
});

test('createSlotRanges() lets a range rest before it is given again, and joins neighbours', () => {
  const { clock, ranges } = make();
  const [a, b] = [ranges.take(32)!, ranges.take(32)!];
  ranges.release(b, 32);
  clock.ms = 500;
  ranges.release(a, 32);
  clock.ms = 999;
  assert.equal(ranges.take(1), undefined);
  clock.ms = 1000;
  assert.equal(ranges.take(32), 32);
  ranges.release(32, 32);
  clock.ms = 2000;
  assert.equal(ranges.take(64), 0);
});

test('createSlotRanges() takes over what is in use, and refuses what overlaps or lies outside', () => {
  const { ranges } = make();
  assert.ok(ranges.claim(16, 20));
  assert.ok(!ranges.claim(32, 1));
  assert.ok(!ranges.claim(8, 1));
  assert.ok(!ranges.claim(64, 1));
  assert.deepEqual([ranges.take(16), ranges.take(16), ranges.take(1)], [0, 48, undefined]);
});

test('createSlotRanges() never gives a slot twice, nor before its rest, in any sequence', () => {
  const step = fc.oneof(
    fc.integer({ min: 1, max: 70 }).map((length) => ({ take: length })),
    fc.nat(10).map((index) => ({ release: index })),
    fc.constantFrom(0, 400, 1000).map((ms) => ({ wait: ms })),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { clock, ranges } = make(256);
      const held: { first: number; length: number }[] = [];
      const freeAtMs = new Array<number>(256).fill(0);
      for (const each of steps) {
        if ('wait' in each) clock.ms += each.wait;
        else if ('take' in each) {
          const first = ranges.take(each.take);
          if (first === undefined) continue;
          assert.equal(first % 16, 0);
          for (let slot = first; slot < first + each.take; slot++) {
            assert.ok(freeAtMs[slot]! <= clock.ms, `slot ${slot} at ${clock.ms}`);
            freeAtMs[slot] = Number.POSITIVE_INFINITY;
          }
          held.push({ first, length: each.take });
        } else if (held.length > 0) {
          const [range] = held.splice(each.release % held.length, 1);
          ranges.release(range!.first, range!.length);
          freeAtMs.fill(clock.ms + 1000, range!.first, range!.first + range!.length);
        }
        assert.equal(
          ranges.used,
          held.reduce((sum, { length }) => sum + Math.ceil(length / 16) * 16, 0),
        );
      }
    }),
  );
});
