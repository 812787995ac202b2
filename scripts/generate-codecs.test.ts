import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { bpfSkipReason, compileBpf } from '../src/kernel/testdata/compile.ts';
import { parseDropReasons } from './drop-reasons.ts';
import { generateCodecs } from './generate-codecs.ts';

const skip = bpfSkipReason();
const needsBpf = skip ? { skip } : {};

const source = `
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
enum color { RED = 1, BLUE = 2 };
struct inner { __u32 a; __u8 b; };
struct row_key { __be32 addr; __be16 port; __u8 pad[2]; };
struct row_value { __u64 bytes[2]; struct inner one; enum color color; __s32 delta; __u8 mac[6]; char name[8]; _Bool on; __u8 next_hop[2][4]; };
struct event { __u64 time_ns; __be64 tag; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 7); __type(key, struct row_key); __type(value, struct row_value); } rows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 3); __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
const volatile __u32 limit __attribute__((btf_decl_tag("How many."))) = 5;
#define BTF_EMIT(kind, name) const kind name *const __emit_##name __attribute__((used)) = 0
BTF_EMIT(struct, event);
BTF_EMIT(enum, color);
SEC("tc") int first(struct __sk_buff *skb) { return bpf_map_lookup_elem(&rows, skb) ? limit : 0; }
char _license[] SEC("license") = "GPL";
`;

test('generateCodecs writes codecs that read back what they wrote, at the offsets of C', needsBpf, async () => {
  const text = generateCodecs([compileBpf('codecs', source)], undefined);
  assert.equal(generateCodecs([compileBpf('codecs', source)], undefined), text);
  const directory = mkdtempSync(join(import.meta.dirname, '../src/kernel/testdata/gen-'));
  try {
    const file = join(directory, 'out.ts');
    writeFileSync(file, text.replace("'./codec.ts'", "'../../codec.ts'"));
    const made = await import(file);
    assert.equal(made.ROW_KEY_SIZE, 8);
    assert.deepEqual(made.rowKey.encode({ addr: 0x0a000001, port: 80 }), new Uint8Array([10, 0, 0, 1, 0, 80, 0, 0]));
    const row = {
      bytes: [1n, 2n ** 63n],
      one: { a: 7, b: 8 },
      color: made.Color.BLUE,
      delta: -5,
      mac: new Uint8Array([1, 2, 3, 4, 5, 6]),
      name: 'eth0',
      on: true,
      nextHop: [new Uint8Array([1, 2, 3, 4]), new Uint8Array([5, 6, 7, 8])],
    };
    assert.deepEqual(made.rowValue.decode(made.rowValue.encode(row)), row);
    assert.throws(() => made.rowValue.encode({ ...row, mac: new Uint8Array(5) }), /row_value.mac has 5 bytes/);
    assert.deepEqual(made.EventOffset, { timeNs: 0, tag: 8 });
    assert.equal(made.colorName[1], 'RED');
    assert.equal(made.datapathMaps.rows.maxEntries, 7);
    assert.equal(made.datapathMaps.counts.perCpu, true);
    assert.equal(made.datapathPlainMaps.events.type, 27);
    assert.match(text, /\/\*\* How many\. \*\/\n {2}limit\?: number;/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('generateCodecs refuses one struct with two layouts', needsBpf, () => {
  const other = source.replace('__u32 a; __u8 b;', '__u8 b; __u32 a;');
  assert.throws(
    () => generateCodecs([compileBpf('one', source), compileBpf('two', other)], undefined),
    /struct (inner|row_value) differs/,
  );
});

test('parseDropReasons reads the list and refuses repeated numbers', () => {
  const text =
    '/* X(NAME, 1, "no", "no") */\n#define L(X) \\\n X(A_B, 130, "it \\"is\\"", "do") \\\n X(C, 131, "c", "d")\n';
  assert.deepEqual(parseDropReasons(text), [
    { name: 'A_B', number: 130, meaning: 'it "is"', action: 'do' },
    { name: 'C', number: 131, meaning: 'c', action: 'd' },
  ]);
  assert.throws(() => parseDropReasons(text.replace('131', '130')), /number 130 comes twice/);
  assert.throws(() => parseDropReasons('int x;'), /no drop reasons found/);
});
