import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadObject } from './bpf-object.ts';
import { isErrno } from './kernel-error.ts';
import { createVeth } from './links.ts';
import { withNetns } from './netns.ts';
import { runProgram } from './run-program.ts';
import { testRun } from './test-run.ts';
import { bpfSkipReason, compileBpf } from './testdata/compile.ts';
import { scratchNetns } from './testdata/scratch-netns.ts';

const skip = bpfSkipReason();
const needsBpf = skip ? { skip } : {};

const source = `
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int echo(struct __sk_buff *skb)
{
  __u8 first = 0xaa;
  skb->cb[0] = skb->ifindex;
  skb->cb[1] = skb->ingress_ifindex;
  skb->cb[2] = skb->len;
  skb->mark = skb->mark + 1;
  bpf_skb_store_bytes(skb, 0, &first, 1, 0);
  return TC_ACT_SHOT;
}
struct answer { __u32 in; __u32 out; };
SEC("syscall") int ask(struct answer *a) { a->out = a->in * 2; return 5; }
SEC("tc") int redirect(struct __sk_buff *skb) { return bpf_redirect(skb->ifindex, 0); }
char _license[] SEC("license") = "GPL";
`;

test('testRun passes packet and context in and out', needsBpf, () => {
  using object = loadObject({ path: compileBpf('echo', source) });
  using netns = scratchNetns();
  createVeth(netns.netlink, { name: 'a0', ifindex: 50, peer: { name: 'b0' } });
  const packet = new Uint8Array(60).fill(1);
  const fd = object.program('echo').fd;
  const result = withNetns(netns.fd, () =>
    testRun(fd, packet, { ctxSkb: { ifindex: 50, ingressIfindex: 50, mark: 7, cb: [1, 2, 3, 4, 5] } }),
  );
  assert.equal(result.retval, 2);
  assert.deepEqual(result.data.subarray(0, 2), new Uint8Array([0xaa, 1]));
  assert.equal(result.data.length, 60);
  assert.equal(result.ctxOut!.mark, 8);
  assert.deepEqual(result.ctxOut!.cb, [50, 50, 60, 4, 5]);
});

test('testRun refuses a device of another namespace', needsBpf, () => {
  using object = loadObject({ path: compileBpf('echo', source) });
  assert.throws(
    () => testRun(object.program('echo').fd, new Uint8Array(60), { ctxSkb: { ifindex: 0x7ffffff } }),
    (error) => isErrno(error, 'ENODEV'),
  );
});

test('testRun repeats and tells a redirect by its verdict', needsBpf, () => {
  using object = loadObject({ path: compileBpf('echo', source) });
  const result = testRun(object.program('redirect').fd, new Uint8Array(60), { repeat: 1000 });
  assert.equal(result.retval, 7);
  assert.ok(result.durationNs < 100_000);
  assert.equal(result.ctxOut, undefined);
});

test('runProgram gives the program its context and brings it back', needsBpf, () => {
  using object = loadObject({ path: compileBpf('echo', source) });
  const ctx = new Uint8Array([21, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(runProgram(object.program('ask').fd, ctx), 5);
  assert.deepEqual(ctx, new Uint8Array([21, 0, 0, 0, 42, 0, 0, 0]));
});
