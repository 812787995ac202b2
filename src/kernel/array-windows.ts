// An array map created with BPF_F_MMAPABLE, as memory that is mapped piece by piece: the kernel counts every mapped page
// as memory of the process, and large arrays are mostly empty.
import type { BpfMap } from './bpf-map.ts';
import { mapShared, PROT_READ, PROT_WRITE, pageSize, type SharedMapping } from './libc.ts';
import type { ArrayMemory } from './mmap-array.ts';

const defaultWindowBytes = 256 * 1024;

/** Maps pieces of the array when they are first read or written. */
export function arrayWindows(map: BpfMap, windowBytes = defaultWindowBytes): ArrayMemory & { mappedBytes(): number } {
  const page = pageSize();
  const strideBytes = (map.valueSize + 7) & ~7;
  const lenBytes = strideBytes * map.maxEntries;
  const mappableBytes = Math.ceil(lenBytes / page) * page;
  const windows = new Map<number, { mapping: SharedMapping; bytes: Uint8Array }>();

  function open(index: number): { mapping: SharedMapping; bytes: Uint8Array } {
    const first = index * windowBytes;
    const length = Math.min(windowBytes, mappableBytes - first);
    const mapping = mapShared(map.fd, length, first, PROT_READ | PROT_WRITE);
    return { mapping, bytes: new Uint8Array(mapping.buffer) };
  }

  /** Calls `work` for each piece of a range, which may go over windows. */
  function pieces(
    offset: number,
    length: number,
    keep: boolean,
    work: (memory: Uint8Array, done: number) => void,
  ): void {
    if (offset < 0 || offset + length > lenBytes)
      throw new RangeError(`map ${map.name}: ${length} bytes at ${offset} of ${lenBytes}`);
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const index = Math.floor(at / windowBytes);
      const inside = at % windowBytes;
      const part = Math.min(length - done, windowBytes - inside);
      const known = windows.get(index);
      const window = known ?? open(index);
      if (known === undefined && keep) windows.set(index, window);
      work(window.bytes.subarray(inside, inside + part), done);
      if (known === undefined && !keep) window.mapping.close();
      done += part;
    }
  }

  function copyOf(offset: number, length: number, keep: boolean): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(length);
    pieces(offset, length, keep, (memory, done) => copy.set(memory, done));
    return copy;
  }

  return {
    lenBytes,
    strideBytes,
    read: (offset, length) => copyOf(offset, length, true),
    peek: (offset, length) => copyOf(offset, length, false),
    write(offset, bytes) {
      pieces(offset, bytes.length, true, (memory, done) => memory.set(bytes.subarray(done, done + memory.length)));
    },
    mappedBytes: () => [...windows.values()].reduce((sum, each) => sum + each.bytes.length, 0),
    close() {
      for (const { mapping } of windows.values()) mapping.close();
      windows.clear();
    },
  };
}
