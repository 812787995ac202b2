// Runs a loaded program on a packet without a network (BPF_PROG_TEST_RUN).
import { BpfAttr, BpfCommand, bpf } from './bpf-syscall.ts';

/** Fields of struct __sk_buff that the kernel lets a test set for tc programs. All others must stay zero. */
export type SkbContext = {
  mark?: number;
  priority?: number;
  ingressIfindex?: number;
  /** A device in the calling thread's network namespace; loopback when left out. */
  ifindex?: number;
  cb?: readonly number[];
  gsoSegs?: number;
  gsoSize?: number;
  wireLenBytes?: number;
};

export type TestRunResult = {
  retval: number;
  /** The packet after the program. */
  data: Uint8Array<ArrayBuffer>;
  ctxOut: { mark: number; priority: number; ingressIfindex: number; ifindex: number; cb: number[] } | undefined;
  /** Mean time of one run. */
  durationNs: number;
};

const skbBytes = 192;
const xdpBytes = 24;
const at = { mark: 8, priority: 32, ingressIfindex: 36, ifindex: 40, cb: 48, wireLen: 160, gsoSegs: 164, gsoSize: 176 };
// Room for headers that a program pushes.
const growthBytes = 1024;

/**
 * Runs a program on `packet` (from the Ethernet header on, at least 14 bytes) and returns its verdict.
 * `xdpIfindex`: for XDP programs, the device by which the packet came. A redirect is only visible as the return value: the kernel does not say where to. `cpu` works for tracing programs only.
 */
export function testRun(
  programFd: number,
  packet: Uint8Array,
  options: { ctxSkb?: SkbContext; xdpIfindex?: number; repeat?: number } = {},
): TestRunResult {
  const output = new Uint8Array(packet.length + growthBytes);
  const attr = new BpfAttr(80)
    .u32(0, programFd)
    .u32(8, packet.length)
    .u32(12, output.length)
    .pointer(16, packet)
    .pointer(24, output)
    .u32(32, options.repeat ?? 1);
  const ctx = options.ctxSkb && new BpfAttr(skbBytes);
  const ctxOut = new BpfAttr(skbBytes);
  if (ctx) {
    fillSkb(ctx, options.ctxSkb!);
    attr.u32(40, skbBytes).u32(44, skbBytes).pointer(48, ctx.bytes).pointer(56, ctxOut.bytes);
  }
  if (options.xdpIfindex !== undefined) {
    // struct xdp_md: the packet's end, and the device it came by.
    const md = new BpfAttr(xdpBytes).u32(4, packet.length).u32(12, options.xdpIfindex);
    attr.u32(40, xdpBytes).pointer(48, md.bytes);
  }
  bpf(BpfCommand.progTestRun, attr, 'PROG_TEST_RUN', `${packet.length} bytes`);
  return {
    retval: attr.readU32(4) | 0,
    data: output.slice(0, attr.readU32(12)),
    ctxOut: ctx && readSkb(ctxOut),
    durationNs: attr.readU32(36),
  };
}

function fillSkb(ctx: BpfAttr, skb: SkbContext): void {
  ctx
    .u32(at.mark, skb.mark ?? 0)
    .u32(at.priority, skb.priority ?? 0)
    .u32(at.ingressIfindex, skb.ingressIfindex ?? 0)
    .u32(at.ifindex, skb.ifindex ?? 0)
    .u32(at.wireLen, skb.wireLenBytes ?? 0)
    .u32(at.gsoSegs, skb.gsoSegs ?? 0)
    .u32(at.gsoSize, skb.gsoSize ?? 0);
  skb.cb?.slice(0, 5).forEach((value, i) => {
    ctx.u32(at.cb + 4 * i, value);
  });
}

function readSkb(ctx: BpfAttr): NonNullable<TestRunResult['ctxOut']> {
  return {
    mark: ctx.readU32(at.mark),
    priority: ctx.readU32(at.priority),
    ingressIfindex: ctx.readU32(at.ingressIfindex),
    ifindex: ctx.readU32(at.ifindex),
    cb: [0, 1, 2, 3, 4].map((i) => ctx.readU32(at.cb + 4 * i)),
  };
}
