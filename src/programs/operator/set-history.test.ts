import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSetDigest } from '../../secure/policy/policy-digest.ts';
import { createSetHistory } from './set-history.ts';

test('createSetHistory() knows which set a digest names, and since when a thing is as it is', () => {
  const history = createSetHistory(3);
  const node = createSetDigest();
  assert.equal(history.positionOf(node.text), 0);
  history.set('a', 'one');
  node.set('a', 'one');
  history.set('b', 'one');
  assert.deepEqual([history.positionOf(node.text), history.changedAt('a'), history.changedAt('b')], [1, 1, 2]);
  history.set('b', 'one');
  assert.equal(history.now, 2, 'what is the same is no step');
  node.set('c', 'one');
  assert.equal(history.positionOf(node.text), -1, 'it was never seen');
  history.set('a', undefined);
  assert.deepEqual([history.now, history.changedAt('a')], [3, 3], 'that it is gone is a step as well');
  node.set('c', undefined);
  history.set('d', 'one');
  assert.equal(history.positionOf(node.text), -1, 'too long ago');
});
