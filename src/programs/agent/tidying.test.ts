import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTidying } from './tidying.ts';

test('createTidying() gives memory back once, when a burst is over, and not for little', () => {
  let work = 0;
  let collected = 0;
  const tidy = createTidying(
    () => work,
    () => collected++,
  );
  const after = (changes: number) => {
    work += changes;
    tidy.look();
    return collected;
  };
  assert.equal(after(5), 0);
  assert.equal(after(0), 0);
  assert.equal(after(300), 0);
  assert.equal(after(1), 0);
  assert.equal(after(0), 1);
  assert.equal(after(0), 1);
  assert.equal(after(2), 1);
  assert.equal(after(0), 1);
});
