import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMap, possibleCpus } from './bpf-map.ts';
import { MapType } from './bpf-syscall.ts';
import { type MapSpec, makeCodec, u16Codec, u32Codec, u64Codec } from './codec.ts';
import { typedMap } from './typed-map.ts';

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'needs root: creates BPF maps' };

type Pair = { a: number; b: number };
const pair = makeCodec<Pair>(
  8,
  (view, offset, row) => {
    view.setUint32(offset, row.a, true);
    view.setUint32(offset + 4, row.b, false);
  },
  (view, offset) => ({ a: view.getUint32(offset, true), b: view.getUint32(offset + 4, false) }),
);
const spec: MapSpec<number, Pair> = {
  name: 'pairs',
  type: MapType.hash,
  maxEntries: 8,
  flags: 0,
  perCpu: false,
  key: u32Codec,
  value: pair,
};

test('typedMap reads back the rows it wrote, singly and in batches', needsRoot, () => {
  using map = createMap({ name: 'pairs', type: MapType.hash, keySize: 4, valueSize: 8, maxEntries: 8 });
  const rows = typedMap(map, spec);
  rows.update(1, { a: 2, b: 3 });
  assert.deepEqual(rows.lookup(1), { a: 2, b: 3 });
  assert.equal(rows.lookup(2), undefined);
  rows.updateBatch([
    { key: 4, value: { a: 5, b: 6 } },
    { key: 7, value: { a: 8, b: 9 } },
  ]);
  assert.deepEqual(
    rows.entries().sort((x, y) => x.key - y.key),
    [
      { key: 1, value: { a: 2, b: 3 } },
      { key: 4, value: { a: 5, b: 6 } },
      { key: 7, value: { a: 8, b: 9 } },
    ],
  );
  assert.equal(rows.deleteBatch([1, 2, 4]), 2);
  assert.equal(rows.delete(7), true);
});

test('typedMap refuses a map compiled from another version', needsRoot, () => {
  using map = createMap({ name: 'pairs', type: MapType.hash, keySize: 4, valueSize: 16, maxEntries: 8 });
  assert.throws(() => typedMap(map, spec), /keys of 4 and values of 16 bytes, the code 4 and 8/);
});

test('typedMap gives the value of each CPU', needsRoot, () => {
  using map = createMap({ name: 'n', type: MapType.percpuArray, keySize: 4, valueSize: 8, maxEntries: 2 });
  const counts = typedMap(map, { ...spec, name: 'n', type: MapType.percpuArray, perCpu: true, value: u64Codec });
  assert.deepEqual(
    counts.lookupPerCpu(1),
    Array.from({ length: possibleCpus() }, () => 0n),
  );
  assert.equal(counts.entriesPerCpu().length, 2);
});

test('codecs of numbers keep the byte order of the machine', () => {
  assert.deepEqual(u16Codec.encode(0x0102), new Uint8Array([2, 1]));
  assert.equal(u64Codec.decode(new Uint8Array([0, 1, 0, 0, 0, 0, 0, 0, 0]), 1), 1n);
});
