import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pauseAfter } from './read-events.ts';

const mib = 2 ** 20;

test('pauseAfter() is 50 ms for what a node does all day, and shorter the faster the ring fills', () => {
  assert.equal(pauseAfter(192, 100, 4 * mib), 50);
  // 10 000 events a second.
  assert.equal(pauseAfter(500 * 192, 50, 4 * mib), 50);
  // 100 000 and 500 000 a second: an eighth of the ring each time.
  assert.equal(pauseAfter(5_000 * 192, 50, 4 * mib), 27);
  assert.equal(pauseAfter(2_500 * 192, 5, 4 * mib), 5);
  assert.equal(pauseAfter(4 * mib, 1, 4 * mib), 2);
  // The same storm, seen after a pause of any length.
  assert.equal(pauseAfter(100_000, 1, 4 * mib), pauseAfter(400_000, 4, 4 * mib));
});
