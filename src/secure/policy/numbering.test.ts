import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFakeClock } from '../../core/clock.ts';
import { createNumbering } from './numbering.ts';

const make = (clock = createFakeClock()) => ({ clock, numbers: createNumbering({ clock, restMs: 1000, first: 5 }) });

test('acquire() gives the same content the same number, others another', () => {
  const { numbers } = make();
  assert.deepEqual([numbers.acquire('a'), numbers.acquire('b'), numbers.acquire('a')], [5, 6, 5]);
});

test('a released number comes back to its content while it rests, and to others only afterwards', async () => {
  const { clock, numbers } = make();
  numbers.acquire('a');
  numbers.release('a');
  await clock.advance(999);
  assert.deepEqual(numbers.sweep(), []);
  assert.equal(numbers.acquire('b'), 6);
  assert.equal(numbers.acquire('a'), 5);
  numbers.release('a');
  await clock.advance(1000);
  assert.deepEqual(numbers.sweep(), [5]);
  assert.equal(numbers.acquire('c'), 5);
});

test('export() and state carry numbers over a restart; what nobody acquires again is forgotten after its rest', async () => {
  const { clock, numbers } = make();
  numbers.acquire('a');
  numbers.acquire('b');
  const state = JSON.parse(JSON.stringify(numbers.export()));
  const again = createNumbering({ clock, restMs: 1000, first: 1, state });
  assert.equal(again.acquire('b'), 6);
  assert.equal(again.acquire('new'), 7);
  await clock.advance(1000);
  assert.deepEqual(again.sweep(), [5]);
  assert.equal(again.size, 2);
});

test('adopt() gives a content a number from before, once, and none that means something already', () => {
  const { numbers } = make();
  numbers.acquire('a');
  assert.deepEqual([numbers.adopt('b', 3), numbers.adopt('c', 3), numbers.adopt('a', 4)], [true, false, false]);
  assert.equal(numbers.adopt('c', 5), false, 'it may have been given to something else since');
  assert.deepEqual(
    [numbers.knows('b'), numbers.knows('c'), numbers.acquire('b'), numbers.acquire('c')],
    [true, false, 3, 6],
  );
});
