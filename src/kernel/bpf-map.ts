// A BPF map as a handle: single calls for the hot path, batches for reconcilers, per-CPU values, pins.
// Keys and values are raw bytes; the generated codecs turn them into rows.
import { readFileSync } from 'node:fs';
import { BpfAttr, BpfCommand, bpf, MapType, objectInfo, openPinned, pinObject, textAt, tryBpf } from './bpf-syscall.ts';
import { errnoName, KernelError } from './kernel-error.ts';
import { mapDeleteElem, mapLookupElem, mapNextKey, mapUpdateElem } from './libbpf.ts';
import { closeFd, dupFd } from './libc.ts';

/** What the kernel says about a map. */
export type MapInfo = {
  id: number;
  name: string;
  type: number;
  keySize: number;
  valueSize: number;
  maxEntries: number;
  flags: number;
};

/** Flags of `update`. */
export const UpdateFlag = { any: 0, onlyNew: 1, onlyExisting: 2 } as const;

export type MapEntry = { key: Uint8Array; value: Uint8Array };

const ENOENT = 2;
const ENOSPC = 28;
const chunkEntries = 4096;
const perCpuTypes: ReadonlySet<number> = new Set([
  MapType.percpuHash,
  MapType.percpuArray,
  MapType.lruPercpuHash,
  21 /* per-CPU cgroup storage */,
]);

/** An open BPF map. Owns its file descriptor: close it, or declare it with `using`. */
export class BpfMap {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  readonly keySize: number;
  /** Bytes of one value as the program sees it. */
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** Bytes of a value as `lookup` and `update` move it: for per-CPU maps one aligned slot per possible CPU. */
  readonly valueBytes: number;
  #fd: number;

  constructor(fd: number) {
    const info = mapInfo(fd);
    this.#fd = fd;
    this.id = info.id;
    this.name = info.name;
    this.type = info.type;
    this.keySize = info.keySize;
    this.valueSize = info.valueSize;
    this.maxEntries = info.maxEntries;
    this.flags = info.flags;
    this.valueBytes = perCpuTypes.has(info.type) ? perCpuStride(info.valueSize) * possibleCpus() : info.valueSize;
  }

  get fd(): number {
    if (this.#fd < 0) throw new KernelError('bpf(map)', 9, `map ${this.name} was closed`);
    return this.#fd;
  }

  get isPerCpu(): boolean {
    return perCpuTypes.has(this.type);
  }

  /** Writes one entry. A full map throws KernelError with `mapFull`. */
  update(key: Uint8Array, value: Uint8Array, flags = 0): void {
    this.#check(key, this.keySize, 'key');
    this.#check(value, this.valueBytes, 'value');
    const result = mapUpdateElem(this.fd, key, value, flags);
    if (result < 0) throw this.#error('MAP_UPDATE_ELEM', -result);
  }

  /** Reads one entry as a copy, undefined when there is none. */
  lookup(key: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
    const value = new Uint8Array(this.valueBytes);
    return this.lookupInto(key, value) ? value : undefined;
  }

  /** Reads one entry into `value` (at least valueBytes long); false when there is none. */
  lookupInto(key: Uint8Array, value: Uint8Array): boolean {
    this.#check(key, this.keySize, 'key');
    if (value.length < this.valueBytes) this.#check(value, this.valueBytes, 'value');
    const result = mapLookupElem(this.fd, key, value);
    if (result === 0) return true;
    if (result === -ENOENT) return false;
    throw this.#error('MAP_LOOKUP_ELEM', -result);
  }

  /** The value of every possible CPU. */
  lookupPerCpu(key: Uint8Array): Uint8Array[] | undefined {
    const value = this.lookup(key);
    return value && this.splitPerCpu(value);
  }

  /** Splits what `lookup` or `entries` gave of a per-CPU map into one slice per possible CPU. */
  splitPerCpu(value: Uint8Array): Uint8Array[] {
    if (!this.isPerCpu) return [value];
    const stride = perCpuStride(this.valueSize);
    return Array.from({ length: possibleCpus() }, (_, cpu) =>
      value.subarray(cpu * stride, cpu * stride + this.valueSize),
    );
  }

  /** Deletes one entry; false when there was none. */
  delete(key: Uint8Array): boolean {
    this.#check(key, this.keySize, 'key');
    const result = mapDeleteElem(this.fd, key);
    if (result === 0) return true;
    if (result === -ENOENT) return false;
    throw this.#error('MAP_DELETE_ELEM', -result);
  }

  /** Every entry, in batches where the map type has them. Entries that change meanwhile may be missed or seen twice. */
  entries(): MapEntry[] {
    return this.#entriesByBatch() ?? this.#entriesByKey();
  }

  /** Writes many entries; in the order given, so that a failure leaves a prefix written. Returns how many. */
  updateBatch(entries: readonly MapEntry[], flags = 0): number {
    for (let start = 0; start < entries.length; start += chunkEntries) {
      const chunk = entries.slice(start, start + chunkEntries);
      const keys = new Uint8Array(chunk.length * this.keySize);
      const values = new Uint8Array(chunk.length * this.valueBytes);
      chunk.forEach((entry, i) => {
        this.#check(entry.key, this.keySize, 'key');
        this.#check(entry.value, this.valueBytes, 'value');
        keys.set(entry.key, i * this.keySize);
        values.set(entry.value, i * this.valueBytes);
      });
      const attr = this.#batchAttr(keys, values, chunk.length, flags);
      const result = tryBpf(BpfCommand.mapUpdateBatch, attr);
      if (result === 0) continue;
      if (!lacksBatch(-result)) {
        const done = start + attr.readU32(batchCountOffset);
        throw this.#error('MAP_UPDATE_BATCH', -result, `after ${done} of ${entries.length} entries`);
      }
      for (const entry of chunk) this.update(entry.key, entry.value, flags);
    }
    return entries.length;
  }

  /** Whether the kernel has batches for this type of map. */
  supportsBatch(): boolean {
    const none = this.#batchAttr(new Uint8Array(this.keySize), new Uint8Array(this.valueBytes), 0, 0);
    return !lacksBatch(-tryBpf(BpfCommand.mapUpdateBatch, none));
  }

  /** Deletes many keys, passing over those that are not there. Returns how many were deleted. */
  deleteBatch(keys: readonly Uint8Array[]): number {
    let deleted = 0;
    let next = 0;
    while (next < keys.length) {
      const chunk = keys.slice(next, next + chunkEntries);
      const packed = new Uint8Array(chunk.length * this.keySize);
      chunk.forEach((key, i) => {
        this.#check(key, this.keySize, 'key');
        packed.set(key, i * this.keySize);
      });
      const attr = this.#batchAttr(packed, undefined, chunk.length, 0);
      const result = tryBpf(BpfCommand.mapDeleteBatch, attr);
      if (result === 0) {
        deleted += chunk.length;
        next += chunk.length;
      } else if (result === -ENOENT) {
        // The kernel stops at the first missing key and says how many went before it.
        const done = attr.readU32(batchCountOffset);
        deleted += done;
        next += done + 1;
      } else if (lacksBatch(-result)) {
        for (const key of chunk) if (this.delete(key)) deleted++;
        next += chunk.length;
      } else {
        throw this.#error('MAP_DELETE_BATCH', -result);
      }
    }
    return deleted;
  }

  /** Pins the map to a path on bpffs. */
  pin(path: string): void {
    pinObject(this.fd, path);
  }

  /** A second handle with a descriptor of its own. */
  duplicate(): BpfMap {
    return new BpfMap(dupFd(this.fd));
  }

  /** Closes the descriptor. Idempotent; every later call throws EBADF. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeFd(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #entriesByBatch(): MapEntry[] | undefined {
    const entries: MapEntry[] = [];
    let position: Uint8Array | undefined;
    let size = Math.min(Math.max(this.maxEntries, 1), chunkEntries);
    for (;;) {
      const keys = new Uint8Array(size * this.keySize);
      const values = new Uint8Array(size * this.valueBytes);
      // Hashes keep a bucket number here, other types a key.
      const after = new Uint8Array(Math.max(this.keySize, 8));
      const attr = this.#batchAttr(keys, values, size, 0).pointer(0, position).pointer(8, after);
      const result = tryBpf(BpfCommand.mapLookupBatch, attr);
      if (result === -ENOSPC) {
        size *= 2; // one bucket holds more than the whole batch
        continue;
      }
      if (result < 0 && result !== -ENOENT) {
        if (entries.length === 0 && lacksBatch(-result)) return undefined;
        throw this.#error('MAP_LOOKUP_BATCH', -result);
      }
      const count = attr.readU32(batchCountOffset);
      for (let i = 0; i < count; i++) {
        entries.push({
          key: keys.subarray(i * this.keySize, (i + 1) * this.keySize),
          value: values.subarray(i * this.valueBytes, (i + 1) * this.valueBytes),
        });
      }
      if (result === -ENOENT) return entries;
      position = after;
    }
  }

  #entriesByKey(): MapEntry[] {
    const entries: MapEntry[] = [];
    let previous: Uint8Array | null = null;
    // A key deleted under our feet restarts the walk: the bound keeps a busy map from holding us for ever.
    for (let steps = 0; steps < this.maxEntries * 2 + 1; steps++) {
      const key = new Uint8Array(this.keySize);
      const result = mapNextKey(this.fd, previous, key);
      if (result === -ENOENT) return entries;
      if (result < 0) throw this.#error('MAP_GET_NEXT_KEY', -result);
      const value = this.lookup(key);
      if (value) entries.push({ key, value });
      previous = key;
    }
    return entries;
  }

  #batchAttr(keys: Uint8Array, values: Uint8Array | undefined, count: number, flags: number): BpfAttr {
    return new BpfAttr(56)
      .pointer(16, keys)
      .pointer(24, values)
      .u32(batchCountOffset, count)
      .u32(36, this.fd)
      .u64(40, flags);
  }

  #check(bytes: Uint8Array, expected: number, what: string): void {
    if (bytes.length !== expected) {
      throw new RangeError(`map ${this.name}: ${what} has ${bytes.length} bytes instead of ${expected}`);
    }
  }

  #error(command: string, errno: number, detail = ''): KernelError {
    const code = errnoName(errno);
    const isHash = this.type !== MapType.array && this.type !== MapType.percpuArray && this.type !== MapType.progArray;
    const mapFull =
      command.startsWith('MAP_UPDATE') &&
      ((code === 'E2BIG' && isHash) || (code === 'ENOSPC' && this.type === MapType.lpmTrie));
    const full = mapFull ? `, full at ${this.maxEntries} entries` : '';
    return new KernelError(`bpf(${command})`, errno, `map ${this.name}${full}${detail ? `, ${detail}` : ''}`, {
      mapFull,
    });
  }
}

const batchCountOffset = 32;

function lacksBatch(errno: number): boolean {
  const code = errnoName(errno);
  return code === 'ENOTSUPP' || code === 'EOPNOTSUPP' || code === 'ENOTSUP' || code === 'EINVAL';
}

/** Opens the map pinned at `path`; KernelError ENOENT when nothing is there. */
export function openPinnedMap(path: string): BpfMap {
  return mapOwning(openPinned(path));
}

/** Creates a map without a program. */
export function createMap(spec: {
  name: string;
  type: number;
  keySize: number;
  valueSize: number;
  maxEntries: number;
  flags?: number;
}): BpfMap {
  const attr = new BpfAttr(72)
    .u32(0, spec.type)
    .u32(4, spec.keySize)
    .u32(8, spec.valueSize)
    .u32(12, spec.maxEntries)
    .u32(16, spec.flags ?? 0)
    .text(28, spec.name, 16);
  return mapOwning(bpf(BpfCommand.mapCreate, attr, 'MAP_CREATE', spec.name));
}

function mapOwning(fd: number): BpfMap {
  try {
    return new BpfMap(fd);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** What the kernel says about the map behind a descriptor. */
export function mapInfo(fd: number): MapInfo {
  const info = objectInfo(fd, 88);
  return {
    type: info.readU32(0),
    id: info.readU32(4),
    keySize: info.readU32(8),
    valueSize: info.readU32(12),
    maxEntries: info.readU32(16),
    flags: info.readU32(20),
    name: textAt(info.bytes, 24, 16),
  };
}

function perCpuStride(valueSize: number): number {
  return (valueSize + 7) & ~7;
}

let cachedCpus = 0;

/** How many CPUs the kernel could ever have: the number of values in a per-CPU entry. */
export function possibleCpus(): number {
  if (!cachedCpus) cachedCpus = parseCpuList(readFileSync('/sys/devices/system/cpu/possible', 'utf8'));
  return cachedCpus;
}

/** Counts the CPUs of a list such as `0-3,8`. Per-CPU maps count up to the highest number. */
export function parseCpuList(text: string): number {
  const last = text.trim().split(',').at(-1)?.split('-').at(-1);
  return Number(last) + 1;
}
