import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { deepEqual } from './equal.ts';

test('deepEqual() agrees with the platform about JSON values', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), fc.jsonValue({ maxDepth: 3 }), (a, b) => {
      assert.equal(deepEqual(a, b), isDeepStrictEqual(a, b) || (Object.is(a, -0) && b === 0));
      assert.ok(deepEqual(a, structuredClone(a)));
    }),
  );
});

test('deepEqual() takes a field that is undefined as missing, and compares bytes', () => {
  assert.ok(deepEqual({ a: 1, b: undefined }, { a: 1 }));
  assert.ok(deepEqual({ a: 1 }, { a: 1, b: undefined }));
  assert.ok(!deepEqual({ a: 1 }, { a: 1, b: null }));
  assert.ok(deepEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 2)));
  assert.ok(!deepEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 3)));
  assert.ok(!deepEqual([], {}));
});
