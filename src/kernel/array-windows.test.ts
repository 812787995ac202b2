import assert from 'node:assert/strict';
import { test } from 'node:test';
import { arrayWindows } from './array-windows.ts';
import { createMap } from './bpf-map.ts';
import { MapType } from './bpf-syscall.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

test('arrayWindows() reads and writes over the borders of its windows and maps only what it must', { skip }, () => {
  using map = createMap({ name: 'w', type: MapType.array, keySize: 4, valueSize: 24, maxEntries: 2000, flags: 1024 });
  const memory = arrayWindows(map, 4096);
  assert.equal(memory.lenBytes, 48_000);
  assert.equal(
    memory.peek(0, 48_000).every((byte) => byte === 0),
    true,
  );
  assert.equal(memory.mappedBytes(), 0);
  const bytes = Uint8Array.from({ length: 24 }, (_, i) => i + 1);
  memory.write(170 * 24, bytes); // from 4080 on
  assert.equal(memory.mappedBytes(), 2 * 4096);
  assert.deepEqual(memory.read(170 * 24, 24), bytes);
  assert.deepEqual(map.lookup(new Uint8Array(Uint32Array.of(170).buffer)), bytes);
  map.update(new Uint8Array(Uint32Array.of(1999).buffer), bytes);
  assert.deepEqual(memory.read(1999 * 24, 24), bytes);
  assert.throws(() => memory.write(1999 * 24 + 1, bytes), RangeError);
  memory.close();
});

test('arrayWindows() keeps only so many windows mapped; what was written stays', { skip }, () => {
  using map = createMap({ name: 'w', type: MapType.array, keySize: 4, valueSize: 8, maxEntries: 51_200, flags: 1024 });
  const memory = arrayWindows(map, 4096);
  const value = (i: number) => new Uint8Array(BigUint64Array.of(BigInt(i)).buffer);
  for (let i = 0; i < 100; i++) memory.write(i * 4096, value(i + 1));
  assert.ok(memory.mappedBytes() < 20 * 4096, `${memory.mappedBytes()}`);
  for (let i = 99; i >= 0; i--) assert.deepEqual(memory.read(i * 4096, 8), value(i + 1));
  memory.close();
});
