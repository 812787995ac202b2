import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createInterned } from './interned.ts';

test('createInterned() makes one value for a key, and forgets when there are too many', () => {
  const of = createInterned<{ n: number }>(2);
  let made = 0;
  const make = () => ({ n: made++ });
  const a = of('a', make);
  assert.equal(of('a', make), a);
  assert.notEqual(of('b', make), a);
  of('c', make);
  assert.notEqual(of('a', make), a, 'three keys are one too many: it begins anew');
  assert.equal(made, 4);
});
