import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { loadObject, loadObjects } from './bpf-object.ts';
import { KernelError } from './kernel-error.ts';
import { testRun } from './test-run.ts';
import { bpfSkipReason, compileBpf } from './testdata/compile.ts';

const skip = bpfSkipReason();
const needsBpf = skip ? { skip } : {};

const source = (valueFields: string, extra = '') => `
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
struct key { __u32 a; };
struct value { ${valueFields} };
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 100);
  __type(key, struct key);
  __type(value, struct value);
} rows SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} seen SEC(".maps");
const volatile __u32 answer = 3;
const volatile __u8 small = 1;
const volatile __s16 signed_one = -1;
SEC("tc") int first(struct __sk_buff *skb)
{
  struct key k = {1};
  struct value *v = bpf_map_lookup_elem(&rows, &k);
  ${extra}
  return v ? 1000 : answer + small + signed_one;
}
SEC("tc") int second(struct __sk_buff *skb)
{
  __u32 zero = 0;
  __u64 *n = bpf_map_lookup_elem(&seen, &zero);
  if (n) *n += 1;
  return 0;
}
char _license[] SEC("license") = "GPL";
`;

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

test('loadObject loads programs with constants and says what they cost', needsBpf, () => {
  const path = compileBpf('plain', source('__u32 x;'));
  const before = openFds();
  {
    using object = loadObject({ path, constants: { answer: 40, small: 3n, signed_one: -2 } });
    assert.deepEqual([...object.programs.keys()].sort(), ['first', 'second']);
    const first = object.program('first');
    assert.ok(first.verifiedInsns > 0 && first.jitedBytes > 0 && first.id > 0);
    assert.deepEqual(first.mapIds.includes(object.map('rows').id), true);
    assert.equal(testRun(first.fd, new Uint8Array(64)).retval, 41);
    assert.throws(() => object.map('none'), /has no map none/);
  }
  assert.equal(openFds(), before);
});

test('loadObject refuses constants that do not exist or do not fit', needsBpf, () => {
  const path = compileBpf('plain', source('__u32 x;'));
  assert.throws(() => loadObject({ path, constants: { nothing: 1 } }), /no constant nothing; it has .*answer/);
  assert.throws(() => loadObject({ path, constants: { small: 256 } }), /outside 0\.\.255/);
  assert.throws(() => loadObject({ path, constants: { answer: -1 } }), /outside 0\.\.4294967295/);
  assert.throws(() => loadObject({ path, constants: { answer: 1.5 } }), /not an integer/);
  assert.throws(() => loadObject({ path, maxEntries: { none: 5 } }), /no map none/);
});

test('loadObject adopts pinned maps that fit and replaces those that do not', needsBpf, () => {
  const pinDir = '/sys/fs/bpf/weir-test-object';
  rmSync(pinDir, { recursive: true, force: true });
  const key = new Uint8Array([1, 0, 0, 0]);
  try {
    const path = compileBpf('pinned', source('__u32 x; __u32 y;'));
    {
      using object = loadObject({ path, pinDir, maxEntries: { rows: 50 } });
      assert.deepEqual([object.adopted, object.replaced], [[], []]);
      assert.equal(object.map('rows').maxEntries, 50);
      object.map('rows').update(key, new Uint8Array(8).fill(7));
    }
    {
      using object = loadObject({ path, pinDir, maxEntries: { rows: 50 } });
      assert.deepEqual([...object.adopted].sort(), ['rows', 'seen']);
      assert.deepEqual(object.map('rows').lookup(key), new Uint8Array(8).fill(7));
      assert.equal(testRun(object.program('first').fd, new Uint8Array(64)).retval, 1000);
    }
    {
      using object = loadObject({ path, pinDir });
      assert.deepEqual(object.replaced, [{ map: 'rows', why: 'max_entries is 50, wanted 100' }]);
      assert.deepEqual(object.adopted, ['seen']);
      assert.equal(object.map('rows').lookup(key), undefined);
    }
    {
      using object = loadObject({ path: compileBpf('swapped', source('__u32 y; __u32 x;')), pinDir });
      assert.deepEqual(object.replaced, [{ map: 'rows', why: 'the fields of the value have changed' }]);
    }
  } finally {
    rmSync(pinDir, { recursive: true, force: true });
  }
});

test('loadObject gives the complaint and the C line when the verifier refuses', needsBpf, () => {
  const path = compileBpf('refused', source('__u32 x;', 'return v->x;'));
  assert.throws(
    () => loadObject({ path }),
    (error) =>
      error instanceof KernelError &&
      error.code === 'EACCES' &&
      /load program first of refused.bpf.o: .*map_value_or_null/.test(error.message) &&
      /at: return v->x; @ refused.bpf.c:\d+/.test(error.message) &&
      error.message.split('\n').length < 16,
  );
});

test('loadObject says when an object has no BTF, or is no object', needsBpf, () => {
  const path = compileBpf('bare', source('__u32 x;'), { debug: false });
  assert.throws(() => loadObject({ path }), /BTF is required/);
  assert.throws(() => loadObject({ path: '/etc/hostname' }), /cannot open hostname/);
  assert.throws(() => loadObject({ path: '/nonexistent.bpf.o' }), /nonexistent/);
});

test('loadObject can leave programs out and use maps that are open already', needsBpf, () => {
  const path = compileBpf('plain', source('__u32 x;'));
  using object = loadObject({ path });
  using again = loadObject({ path, programs: ['second'], reuse: { seen: object.map('seen') } });
  assert.deepEqual([...again.programs.keys()], ['second']);
  assert.equal(again.map('seen').id, object.map('seen').id);
});

test('loadObjects has objects share the maps that the first of them makes', needsBpf, async () => {
  const pinDir = '/sys/fs/bpf/weir-test-objects';
  rmSync(pinDir, { recursive: true, force: true });
  const before = openFds();
  try {
    const path = compileBpf('plain', source('__u32 x;'));
    for (const adopted of [0, 2]) {
      const objects = await Promise.all(
        loadObjects([1, 2, 3].map((answer) => ({ path, pinDir, constants: { answer } }))),
      );
      assert.deepEqual(
        objects.map((object) => object.adopted.length),
        [adopted, 2, 2],
      );
      assert.equal(new Set(objects.map((object) => object.map('rows').id)).size, 1);
      const answers = objects.map((object) => testRun(object.program('first').fd, new Uint8Array(64)).retval);
      assert.deepEqual(answers, [1, 2, 3]);
      for (const object of objects) object.close();
    }
  } finally {
    rmSync(pinDir, { recursive: true, force: true });
  }
  assert.equal(openFds(), before);
});

test(
  'loadObjects gives the reason of what is refused, and the same to those that wait for its maps',
  needsBpf,
  async () => {
    const pinDir = '/sys/fs/bpf/weir-test-refused';
    rmSync(pinDir, { recursive: true, force: true });
    const good = compileBpf('plain', source('__u32 x;'));
    const refused = compileBpf('refused', source('__u32 x;', 'return v->x;'));
    const before = openFds();
    try {
      const reasons = async (...objects: { path: string; pinDir?: string }[]) =>
        (await Promise.allSettled(loadObjects(objects))).map((each) => {
          if (each.status === 'rejected') return String(each.reason);
          each.value.close();
          return 'loaded';
        });
      const [waitedFor, waiting] = await reasons({ path: refused, pinDir }, { path: good, pinDir });
      assert.match(waitedFor!, /load program first of refused.bpf.o: .*map_value_or_null/);
      assert.equal(waiting, waitedFor);
      const [first, second, third] = await reasons({ path: good }, { path: refused }, { path: good });
      assert.deepEqual([first, third], ['loaded', 'loaded']);
      assert.match(second!, /refused.bpf.o/);
      assert.match((await reasons({ path: '/etc/hostname' }))[0]!, /cannot open hostname/);
      assert.equal(openFds(), before);
    } finally {
      rmSync(pinDir, { recursive: true, force: true });
    }
  },
);
