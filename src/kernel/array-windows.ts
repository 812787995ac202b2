// An array map created with BPF_F_MMAPABLE, as memory that is mapped piece by piece: the kernel counts every mapped page
// as memory of the process, and large arrays are mostly empty or rarely touched.
import type { BpfMap } from './bpf-map.ts';
import { mapShared, PROT_READ, PROT_WRITE, pageSize, type SharedMapping } from './libc.ts';
import type { ArrayMemory } from './mmap-array.ts';

const defaultWindowBytes = 32 * 1024;
/** Enough for work that goes on in one place; opening one takes some microseconds. */
const keptWindows = 16;

interface Window {
  readonly mapping: SharedMapping;
  readonly bytes: Uint8Array;
}

/** Maps pieces of the array when they are read or written, and keeps those of the last. */
export function arrayWindows(map: BpfMap, windowBytes = defaultWindowBytes): ArrayMemory & { mappedBytes(): number } {
  const page = pageSize();
  const strideBytes = (map.valueSize + 7) & ~7;
  const lenBytes = strideBytes * map.maxEntries;
  const mappableBytes = Math.ceil(lenBytes / page) * page;
  const windows = new Map<number, Window>();

  function open(index: number): Window {
    const first = index * windowBytes;
    const length = Math.min(windowBytes, mappableBytes - first);
    const mapping = mapShared(map.fd, length, first, PROT_READ | PROT_WRITE);
    return { mapping, bytes: new Uint8Array(mapping.buffer) };
  }

  /** Most work goes on in one window. */
  let last: { readonly index: number; readonly bytes: Uint8Array } = { index: -1, bytes: new Uint8Array(0) };

  /** The map is in the order of use. */
  function keepOnly(index: number, window: Window): void {
    last = { index, bytes: window.bytes };
    windows.delete(index);
    windows.set(index, window);
    if (windows.size <= keptWindows) return;
    const [oldest, { mapping }] = windows.entries().next().value!;
    windows.delete(oldest);
    mapping.close();
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
      if (keep) keepOnly(index, window);
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
      const inside = offset - last.index * windowBytes;
      if (inside >= 0 && inside + bytes.length <= last.bytes.length && offset + bytes.length <= lenBytes) {
        last.bytes.set(bytes, inside);
        return;
      }
      pieces(offset, bytes.length, true, (memory, done) => memory.set(bytes.subarray(done, done + memory.length)));
    },
    mappedBytes: () => [...windows.values()].reduce((sum, each) => sum + each.bytes.length, 0),
    close() {
      for (const { mapping } of windows.values()) mapping.close();
      windows.clear();
      last = { index: -1, bytes: new Uint8Array(0) };
    },
  };
}
