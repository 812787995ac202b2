import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMap } from './bpf-map.ts';
import { loadObject } from './bpf-object.ts';
import { MapType } from './bpf-syscall.ts';
import { mmapArray } from './mmap-array.ts';
import { openRing, readRing, ringOver } from './ring-buffer.ts';
import { testRun } from './test-run.ts';
import { bpfSkipReason, compileBpf } from './testdata/compile.ts';

const skip = bpfSkipReason();
const needsBpf = skip ? { skip } : {};

// Each run writes one record: its number, and bytes up to a length that the first packet byte gives (times 8).
const source = `
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32); __type(value, __u32); } state SEC(".maps");
static __always_inline int emit(int size, int discard)
{
  __u32 zero = 0, one = 1;
  __u32 *n = bpf_map_lookup_elem(&state, &zero), *lost = bpf_map_lookup_elem(&state, &one);
  if (!n || !lost) return 1;
  __u32 *record = bpf_ringbuf_reserve(&events, size, 0);
  if (!record) { *lost += 1; return 2; }
  record[0] = (*n)++;
  record[1] = size;
  if (discard) bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
  else bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
  return 0;
}
SEC("tc") int emit128(struct __sk_buff *skb) { return emit(128, 0); }
SEC("tc") int emit12(struct __sk_buff *skb) { return emit(12, 0); }
SEC("tc") int emit_none(struct __sk_buff *skb) { return emit(40, 1); }
char _license[] SEC("license") = "GPL";
`;

const packet = new Uint8Array(64);

function open() {
  const object = loadObject({ path: compileBpf('ring', source) });
  const ring = openRing(object.map('events'));
  const state = mmapArray(object.map('state'));
  return {
    ring,
    lost: () => state.view.getUint32(state.strideBytes, true),
    emit(name: string, times = 1) {
      let retval = 0;
      // One run a call: a call of several that a signal interrupts begins again, and emits more than was asked for.
      for (let i = 0; i < times; i++) ({ retval } = testRun(object.program(name).fd, packet));
      return retval;
    },
    [Symbol.dispose]() {
      ring.close();
      state.close();
      object.close();
    },
  };
}

test('readRing gives records in order, across many wraps and sizes, and passes over discarded ones', needsBpf, () => {
  using t = open();
  let expected = 0;
  for (let round = 0; round < 200; round++) {
    t.emit('emit128', 20);
    t.emit('emit_none', 3);
    t.emit('emit12', 30);
    assert.equal(t.ring.backlogBytes(), 20 * 136 + 3 * 48 + 30 * 24);
    const seen: number[] = [];
    const count = readRing(t.ring, (view, offset, lenBytes) => {
      assert.equal(view.getUint32(offset + 4, true), lenBytes);
      seen.push(view.getUint32(offset, true));
    });
    assert.equal(count, 50);
    assert.deepEqual(seen, [
      ...Array.from({ length: 20 }, (_, i) => expected + i),
      ...Array.from({ length: 30 }, (_, i) => expected + 23 + i),
    ]);
    expected += 53;
    assert.equal(t.ring.backlogBytes(), 0);
  }
  assert.equal(t.lost(), 0);
});

test('readRing keeps to its budget and a full ring loses only what it says', needsBpf, () => {
  using t = open();
  const fits = Math.floor(65536 / 136);
  t.emit('emit128', fits + 100);
  assert.equal(t.lost(), 100);
  assert.equal(
    readRing(t.ring, () => {}, 10),
    10,
  );
  assert.equal(
    readRing(t.ring, () => {}),
    fits - 10,
  );
  assert.equal(
    readRing(t.ring, () => {}),
    0,
  );
  assert.equal(t.emit('emit128'), 0);
});

test('readRing counts a record as read when its callback throws', needsBpf, () => {
  using t = open();
  t.emit('emit12', 3);
  const seen: number[] = [];
  assert.throws(
    () =>
      readRing(t.ring, (view, offset) => {
        seen.push(view.getUint32(offset, true));
        if (seen.length === 2) throw new Error('reader broke');
      }),
    /reader broke/,
  );
  readRing(t.ring, (view, offset) => seen.push(view.getUint32(offset, true)));
  assert.deepEqual(seen, [0, 1, 2]);
});

test('readRing gives nothing after close, and a second close does nothing', needsBpf, () => {
  using t = open();
  t.emit('emit12', 3);
  t.ring.close();
  t.ring.close();
  assert.equal(
    readRing(t.ring, () => assert.fail('a record after close')),
    0,
  );
  assert.equal(t.ring.backlogBytes(), 0);
});

test('readRing stops at a record that is still being written, and goes on once it is done', () => {
  const page = 4096;
  const data = new ArrayBuffer(page + 2 * page);
  const ring = ringOver(new ArrayBuffer(page), data, page, () => {});
  const header = new Uint32Array(data, page);
  header[0] = 8; // done
  header[4] = 0x80000000 + 8; // busy
  header[8] = 0x40000000 + 8; // discarded
  header[12] = 8; // done
  new BigUint64Array(data, 0, 1)[0] = 64n;
  const offsets: number[] = [];
  const read = () => readRing(ring, (_view, offset) => offsets.push(offset));
  assert.equal(read(), 1);
  assert.equal(read(), 0);
  assert.equal(ring.backlogBytes(), 48);
  header[4] = 8;
  assert.equal(read(), 2);
  assert.deepEqual(offsets, [8, 24, 56]);
});

test('openRing refuses other maps', needsBpf, () => {
  using map = createMap({ name: 'hash', type: MapType.hash, keySize: 4, valueSize: 4, maxEntries: 4 });
  assert.throws(() => openRing(map), /not a ring buffer/);
  assert.throws(() => mmapArray(map), /without BPF_F_MMAPABLE/);
});

test('mmapArray shows what programs write and programs see what it writes', needsBpf, () => {
  using map = createMap({
    name: 'array',
    type: MapType.array,
    keySize: 4,
    valueSize: 4,
    maxEntries: 3000,
    flags: 1024,
  });
  using array = mmapArray(map);
  array.view.setUint32(2999 * array.strideBytes, 77, true);
  assert.deepEqual(map.lookup(new Uint8Array([0xb7, 0x0b, 0, 0])), new Uint8Array([77, 0, 0, 0]));
});
