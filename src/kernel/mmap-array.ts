// An array map created with BPF_F_MMAPABLE, as memory: reads and writes cost no system call.
import type { BpfMap } from './bpf-map.ts';
import { mapShared, PROT_READ, PROT_WRITE, pageSize } from './libc.ts';

/** The memory of an array map. Offsets and lengths are in bytes. */
export interface ArrayMemory {
  readonly lenBytes: number;
  /** Bytes from one value to the next. */
  readonly strideBytes: number;
  /** A copy. */
  read(offset: number, length: number): Uint8Array<ArrayBuffer>;
  /** A copy of what will hardly be written: keeps nothing mapped. */
  peek(offset: number, length: number): Uint8Array<ArrayBuffer>;
  write(offset: number, bytes: Uint8Array): void;
  close(): void;
}

/** All of an array in one mapping. */
export type MappedArray = ArrayMemory & {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** The array as numbers; only where a value is 4 bytes. Use Atomics on it: programs read and write it too. */
  readonly u32: Uint32Array;
  [Symbol.dispose](): void;
};

const BPF_F_MMAPABLE = 1024;

/** Maps an array map for reading and writing. After close all its views are empty. */
export function mmapArray(map: BpfMap): MappedArray {
  if ((map.flags & BPF_F_MMAPABLE) === 0) throw new TypeError(`map ${map.name} was made without BPF_F_MMAPABLE`);
  const strideBytes = (map.valueSize + 7) & ~7;
  const page = pageSize();
  // The kernel lays values of 4 bytes out in slots of 8, like all others.
  const lenBytes = strideBytes * map.maxEntries;
  const mapping = mapShared(map.fd, Math.ceil(lenBytes / page) * page, 0, PROT_READ | PROT_WRITE);
  const bytes = new Uint8Array(mapping.buffer, 0, lenBytes);
  const read = (offset: number, length: number) => bytes.slice(offset, offset + length) as Uint8Array<ArrayBuffer>;
  return {
    bytes,
    lenBytes,
    read,
    peek: read,
    write: (offset, from) => bytes.set(from, offset),
    view: new DataView(mapping.buffer, 0, lenBytes),
    u32: new Uint32Array(mapping.buffer, 0, lenBytes / 4),
    strideBytes,
    close: mapping.close,
    [Symbol.dispose]: mapping.close,
  };
}
