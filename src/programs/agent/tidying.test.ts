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

test('createTidying() collects a little while a burst goes on for long, and once more after it', () => {
  let work = 0;
  const collected: boolean[] = [];
  const tidy = createTidying(
    () => work,
    (thorough) => collected.push(thorough),
  );
  for (let i = 0; i < 12; i++) {
    work += 100;
    tidy.look();
  }
  assert.deepEqual(collected, [false, false]);
  work += 500;
  tidy.look();
  work += 499;
  tidy.look();
  tidy.look();
  assert.deepEqual(collected, [false, false, false, false]);
});
