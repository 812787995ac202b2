import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { createMap, openPinnedMap, parseCpuList, possibleCpus, UpdateFlag } from './bpf-map.ts';
import { MapType } from './bpf-syscall.ts';
import { isErrno, isMapFull } from './kernel-error.ts';

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'needs root: creates BPF maps' };

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function hashMap(maxEntries: number) {
  return createMap({ name: 'weir_test', type: MapType.hash, keySize: 4, valueSize: 4, maxEntries });
}

test('BpfMap reads back what it wrote and forgets what it deleted', needsRoot, () => {
  using map = hashMap(16);
  assert.equal(map.lookup(u32(1)), undefined);
  map.update(u32(1), u32(11));
  assert.deepEqual(map.lookup(u32(1)), u32(11));
  assert.throws(
    () => map.update(u32(1), u32(12), UpdateFlag.onlyNew),
    (e) => isErrno(e, 'EEXIST'),
  );
  assert.equal(map.delete(u32(1)), true);
  assert.equal(map.delete(u32(1)), false);
  assert.equal(map.name, 'weir_test');
});

test('BpfMap.update tells a full hash and a full LPM trie from other failures', needsRoot, () => {
  using map = hashMap(2);
  map.update(u32(1), u32(1));
  map.update(u32(2), u32(2));
  assert.throws(() => map.update(u32(3), u32(3)), isMapFull);
  using trie = createMap({
    name: 'weir_trie',
    type: MapType.lpmTrie,
    keySize: 8,
    valueSize: 4,
    maxEntries: 1,
    flags: 1,
  });
  const prefix = (last: number) => new Uint8Array([32, 0, 0, 0, 10, 0, 0, last]);
  trie.update(prefix(1), u32(1));
  assert.throws(() => trie.update(prefix(2), u32(2)), isMapFull);
  using array = createMap({ name: 'weir_array', type: MapType.array, keySize: 4, valueSize: 4, maxEntries: 1 });
  assert.throws(
    () => array.update(u32(1), u32(1)),
    (e) => isErrno(e, 'E2BIG') && !isMapFull(e),
  );
});

test('BpfMap batches agree with single calls over more than one chunk', needsRoot, () => {
  using map = hashMap(20_000);
  const entries = Array.from({ length: 10_000 }, (_, i) => ({ key: u32(i), value: u32(i * 3) }));
  assert.equal(map.updateBatch(entries), 10_000);
  const found = map.entries();
  assert.equal(found.length, 10_000);
  const sum = found.reduce((total, { value }) => total + (value[0]! | (value[1]! << 8) | (value[2]! << 16)), 0);
  assert.equal(sum, (3 * 9_999 * 10_000) / 2);
  const keys = [u32(0), u32(99_999), u32(1), u32(88_888), u32(2)];
  assert.equal(map.deleteBatch(keys), 3);
  assert.equal(map.entries().length, 9_997);
});

test('BpfMap.updateBatch says how far it came in a full map', needsRoot, () => {
  using map = hashMap(4);
  const entries = Array.from({ length: 6 }, (_, i) => ({ key: u32(i), value: u32(i) }));
  assert.throws(() => map.updateBatch(entries), /after 4 of 6 entries/);
  assert.throws(() => map.updateBatch(entries), isMapFull);
});

test('BpfMap.entries walks an LPM trie', needsRoot, () => {
  using trie = createMap({
    name: 'weir_trie',
    type: MapType.lpmTrie,
    keySize: 8,
    valueSize: 4,
    maxEntries: 9000,
    flags: 1,
  });
  const entries = Array.from({ length: 5000 }, (_, i) => ({
    key: new Uint8Array([32, 0, 0, 0, 10, 1, i >> 8, i & 255]),
    value: u32(i),
  }));
  trie.updateBatch(entries);
  assert.equal(new Set(trie.entries().map(({ key }) => key.join())).size, 5000);
});

test('BpfMap.lookupPerCpu gives one value per possible CPU', needsRoot, () => {
  using map = createMap({ name: 'weir_percpu', type: MapType.percpuArray, keySize: 4, valueSize: 4, maxEntries: 1 });
  const all = new Uint8Array(8 * possibleCpus());
  for (let cpu = 0; cpu < possibleCpus(); cpu++) all[cpu * 8] = cpu + 1;
  map.update(u32(0), all);
  assert.deepEqual(
    map.lookupPerCpu(u32(0))!.map((value) => value[0]),
    Array.from({ length: possibleCpus() }, (_, cpu) => cpu + 1),
  );
  assert.equal(map.entries().length, 1);
});

test('BpfMap pins and opens by path; a missing pin is ENOENT', needsRoot, () => {
  const dir = '/sys/fs/bpf/weir-test-map';
  mkdirSync(dir, { recursive: true });
  try {
    using map = hashMap(4);
    map.pin(`${dir}/m`);
    map.update(u32(7), u32(70));
    using again = openPinnedMap(`${dir}/m`);
    assert.deepEqual(again.lookup(u32(7)), u32(70));
    assert.equal(again.id, map.id);
    assert.throws(
      () => openPinnedMap(`${dir}/none`),
      (e) => isErrno(e, 'ENOENT'),
    );
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('BpfMap refuses a closed handle and bytes of a wrong length', needsRoot, () => {
  const map = hashMap(4);
  assert.throws(() => map.update(new Uint8Array(3), u32(1)), /key has 3 bytes instead of 4/);
  assert.throws(() => map.update(u32(1), new Uint8Array(5)), /value has 5 bytes instead of 4/);
  map.close();
  map.close();
  assert.throws(
    () => map.lookup(u32(1)),
    (e) => isErrno(e, 'EBADF'),
  );
});

test('parseCpuList counts up to the highest CPU', () => {
  assert.equal(parseCpuList('0-3\n'), 4);
  assert.equal(parseCpuList('0'), 1);
  assert.equal(parseCpuList('0-1,4-7'), 8);
});
