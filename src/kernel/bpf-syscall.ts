// bpf(2) itself: commands, numbers that the kernel's uapi/linux/bpf.h fixes, and the attribute block.
import { KernelError } from './kernel-error.ts';
import { addressOf, rawSyscall, rawSyscallAsync } from './libc.ts';

const bpfSyscallNumbers: Record<string, number> = { x64: 321, arm64: 280, riscv64: 280, s390x: 351, ppc64: 361 };
const syscallNumber = bpfSyscallNumbers[process.arch];

/** Commands of bpf(2). */
export const BpfCommand = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapNextKey: 4,
  progLoad: 5,
  objPin: 6,
  objGet: 7,
  progTestRun: 10,
  progNextId: 11,
  progFdById: 13,
  mapFdById: 14,
  objInfo: 15,
  rawTracepointOpen: 17,
  btfLoad: 18,
  mapLookupBatch: 24,
  mapUpdateBatch: 26,
  mapDeleteBatch: 27,
  linkCreate: 28,
  linkUpdate: 29,
  enableStats: 32,
  iterCreate: 33,
  linkDetach: 34,
} as const;

/** Map types that Weir creates or reads. */
export const MapType = {
  hash: 1,
  array: 2,
  progArray: 3,
  perfEventArray: 4,
  percpuHash: 5,
  percpuArray: 6,
  lruHash: 9,
  lruPercpuHash: 10,
  lpmTrie: 11,
  arrayOfMaps: 12,
  hashOfMaps: 13,
  sockhash: 18,
  queue: 22,
  stack: 23,
  skStorage: 24,
  ringbuf: 27,
} as const;

/** Program types that Weir loads. */
export const ProgType = {
  socketFilter: 1,
  schedCls: 3,
  xdp: 6,
  cgroupSock: 9,
  sockOps: 13,
  cgroupSockAddr: 18,
  tracing: 26,
  skLookup: 30,
  syscall: 31,
} as const;

/** A bpf_attr block: fields are written at the offsets that uapi/linux/bpf.h gives them. */
export class BpfAttr {
  readonly bytes: Uint8Array<ArrayBuffer>;
  private readonly view: DataView;
  // What the block points at must outlive the call: keep references until the block itself goes.
  private readonly kept: Uint8Array[] = [];

  constructor(lenBytes: number) {
    this.bytes = new Uint8Array(lenBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  u32(offset: number, value: number): this {
    this.view.setUint32(offset, value, true);
    return this;
  }

  u64(offset: number, value: bigint | number): this {
    this.view.setBigUint64(offset, BigInt(value), true);
    return this;
  }

  pointer(offset: number, target: Uint8Array | undefined): this {
    if (target) {
      this.kept.push(target);
      this.u64(offset, addressOf(target));
    }
    return this;
  }

  text(offset: number, text: string, lenBytes: number): this {
    this.bytes.set(new TextEncoder().encode(text).subarray(0, lenBytes - 1), offset);
    return this;
  }

  readU32(offset: number): number {
    return this.view.getUint32(offset, true);
  }

  readU64(offset: number): bigint {
    return this.view.getBigUint64(offset, true);
  }
}

const EINTR = 4;

/** Runs a command; returns the kernel's answer, or -errno. */
export function tryBpf(command: number, attr: BpfAttr): number {
  if (syscallNumber === undefined) return -38;
  return rawSyscall(syscallNumber, command, attr.bytes, attr.bytes.length);
}

/** Runs a command; throws KernelError on failure. `what` says which command and object, for the error. */
export function bpf(command: number, attr: BpfAttr, what: string, detail?: string): number {
  let result = tryBpf(command, attr);
  // A test run ends early when a signal arrives, such as the garbage collector's: nothing has happened then.
  for (let tries = 0; result === -EINTR && command === BpfCommand.progTestRun && tries < 100; tries++)
    result = tryBpf(command, attr);
  if (result < 0) throw new KernelError(`bpf(${what})`, -result, detail);
  return result;
}

/** Runs a command on a thread of the pool, for those that wait for the kernel. Undefined when it failed. */
export async function bpfAsync(command: number, attr: BpfAttr): Promise<number | undefined> {
  if (syscallNumber === undefined) return undefined;
  const result = await rawSyscallAsync(syscallNumber, command, attr.bytes, attr.bytes.length);
  return result < 0 ? undefined : result;
}

/** A C string inside a fixed buffer. */
export function textAt(bytes: Uint8Array, offset: number, lenBytes: number): string {
  const slice = bytes.subarray(offset, offset + lenBytes);
  const end = slice.indexOf(0);
  return new TextDecoder().decode(end < 0 ? slice : slice.subarray(0, end));
}

/** Pins a map, program or link to a path on bpffs. */
export function pinObject(fd: number, path: string): void {
  const attr = new BpfAttr(16).pointer(0, cString(path)).u32(8, fd);
  bpf(BpfCommand.objPin, attr, 'OBJ_PIN', path);
}

/** Opens what is pinned at a path. */
export function openPinned(path: string): number {
  return bpf(BpfCommand.objGet, new BpfAttr(16).pointer(0, cString(path)), 'OBJ_GET', path);
}

/** Fills `lenBytes` of the kernel's info about an object (map, program, link or BTF). */
export function objectInfo(fd: number, lenBytes: number, info = new BpfAttr(lenBytes)): BpfAttr {
  const attr = new BpfAttr(16).u32(0, fd).u32(4, lenBytes).pointer(8, info.bytes);
  bpf(BpfCommand.objInfo, attr, 'OBJ_GET_INFO_BY_FD', `fd ${fd}`);
  return info;
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
