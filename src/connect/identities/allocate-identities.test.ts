import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { identityKey } from '../../core/identity.ts';
import { createIdentityAllocator } from './allocate-identities.ts';

const labels = (name: string) => [`k8s:app=${name}`];
const small = () => createIdentityAllocator({ first: 256, last: 258 });

test('numberFor() gives equal label sets one number, in whatever order they come', () => {
  const allocator = small();
  assert.deepEqual(allocator.numberFor(['a=1', 'b=2']), { id: 256, isNew: true });
  assert.deepEqual(allocator.numberFor(['b=2', 'a=1']), { id: 256, isNew: false });
});

test('numberFor() refuses when no number is left, and says how many it refused', () => {
  const allocator = small();
  for (const name of ['a', 'b', 'c']) allocator.numberFor(labels(name));
  assert.equal(allocator.numberFor(labels('d')), undefined);
  assert.equal(allocator.numberFor(labels('d')), undefined);
  assert.deepEqual(allocator.usage(), { used: 3, capacity: 3, refused: 1 });
  allocator.forget(257);
  assert.deepEqual(allocator.numberFor(labels('d')), { id: 257, isNew: true });
  assert.deepEqual(allocator.usage(), { used: 3, capacity: 3, refused: 0 });
});

test('numberFor() reuses a number as late as possible', () => {
  const allocator = createIdentityAllocator({ first: 1, last: 4 });
  allocator.numberFor(labels('a'));
  allocator.numberFor(labels('b'));
  allocator.forget(1);
  assert.equal(allocator.numberFor(labels('c'))?.id, 3);
  assert.equal(allocator.numberFor(labels('d'))?.id, 4);
  assert.equal(allocator.numberFor(labels('e'))?.id, 1);
});

test('duplicates() are all but the lowest number of a label set; the lowest counts', () => {
  const allocator = createIdentityAllocator();
  for (const id of [700, 300, 500]) allocator.learn({ id, labels: labels('a') });
  assert.deepEqual(allocator.duplicates(), [500, 700]);
  assert.equal(allocator.numberFor(labels('a'))?.id, 300);
  allocator.forget(300);
  assert.equal(allocator.numberFor(labels('a'))?.id, 500);
});

test('learn() of other labels for a known number replaces what it meant', () => {
  const allocator = small();
  allocator.learn({ id: 256, labels: labels('a') });
  allocator.learn({ id: 256, labels: labels('b') });
  assert.equal(allocator.numberFor(labels('b'))?.id, 256);
  assert.deepEqual(allocator.numberFor(labels('a')), { id: 257, isNew: true });
  assert.deepEqual(allocator.duplicates(), []);
});

test('unused() waits for the grace, and a use in between starts it again', () => {
  const allocator = small();
  allocator.numberFor(labels('a'));
  const used = new Set([identityKey(labels('a'))]);
  const none = new Set<string>();
  assert.deepEqual(allocator.unused(none, 0, 100), []);
  assert.deepEqual(allocator.unused(none, 99, 100), []);
  assert.deepEqual(allocator.unused(used, 100, 100), []);
  assert.deepEqual(allocator.unused(none, 150, 100), []);
  assert.deepEqual(allocator.unused(none, 250, 100), [256]);
});

test('a label set that nobody has any more is no longer refused', () => {
  const allocator = createIdentityAllocator({ first: 1, last: 1 });
  allocator.numberFor(labels('a'));
  allocator.numberFor(labels('b'));
  allocator.unused(new Set([identityKey(labels('a'))]), 0, 1);
  assert.equal(allocator.usage().refused, 0);
});

test('whatever happens, no number means two label sets', () => {
  const step = fc.record({ name: fc.integer({ min: 0, max: 5 }).map(String), forget: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const allocator = createIdentityAllocator({ first: 1, last: 4 });
      const meaning = new Map<number, string>();
      for (const { name, forget } of steps) {
        const known = [...meaning].find(([, value]) => value === name);
        if (forget && known !== undefined) {
          allocator.forget(known[0]);
          meaning.delete(known[0]);
          continue;
        }
        const given = allocator.numberFor(labels(name));
        if (given === undefined) assert.equal(meaning.size, 4);
        else {
          assert.equal(meaning.get(given.id) ?? name, name);
          meaning.set(given.id, name);
        }
      }
    }),
  );
});

test('a number that was in use before a restart is not the next one after it', () => {
  const identities = createIdentityAllocator({ first: 256, last: 300 });
  identities.learn({ id: 270, labels: ['k8s:app=a'] });
  assert.deepEqual(identities.numberFor(['k8s:app=b']), { id: 271, isNew: true });
  identities.learn({ id: 300, labels: ['k8s:app=c'] });
  assert.deepEqual(identities.numberFor(['k8s:app=d']), { id: 256, isNew: true });
});
