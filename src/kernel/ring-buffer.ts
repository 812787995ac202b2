// Reads a BPF ring buffer where it lies: its pages are mapped and walked with Atomics, without a call per record.
// Layout (kernel: kernel/bpf/ringbuf.c): page 0 consumer position, page 1 producer position, then the data twice in
// a row, so that a record never wraps. A record is a header of 8 bytes (length with busy and discard bits) and its data.
import type { BpfMap } from './bpf-map.ts';
import { MapType } from './bpf-syscall.ts';
import { mapShared, PROT_READ, PROT_WRITE, pageSize } from './libc.ts';

const BUSY = 0x80000000 | 0;
const DISCARDED = 0x40000000;
const LENGTH = 0x3fffffff;
const headerBytes = 8;
// Space goes back to the kernel at least this often within one call of readRing.
const releaseEveryBytes = 256 * 1024;

export type RingBuffer = {
  /** Data bytes; a power of two. */
  readonly sizeBytes: number;
  /** The data, twice in a row: offsets given to a callback of readRing point into it. */
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** Bytes written and not yet read, headers and records in progress included. */
  backlogBytes(): number;
  close(): void;
  [Symbol.dispose](): void;
};

/** The kernel would show all of the data twice; each mapped page counts as the process's memory. */
const longestRecordBytes = 64 * 1024;

type RingState = RingBuffer & {
  headers: Int32Array;
  consumer: BigUint64Array;
  producer: BigUint64Array;
  position: number;
};

/** Maps the ring of a BPF_MAP_TYPE_RINGBUF. One reader per ring: the position is the kernel's, and shared. */
export function openRing(map: BpfMap): RingBuffer {
  if (map.type !== MapType.ringbuf) throw new TypeError(`map ${map.name} is not a ring buffer`);
  const page = pageSize();
  const sizeBytes = map.maxEntries;
  const consumerPage = mapShared(map.fd, page, 0, PROT_READ | PROT_WRITE);
  let dataPages: ReturnType<typeof mapShared>;
  try {
    dataPages = mapShared(map.fd, page + sizeBytes + Math.min(sizeBytes, longestRecordBytes), page, PROT_READ);
  } catch (error) {
    consumerPage.close();
    throw error;
  }
  const close = () => {
    consumerPage.close();
    dataPages.close();
  };
  return ringOver(consumerPage.buffer, dataPages.buffer, page, close, sizeBytes);
}

/**
 * A ring over memory with the kernel's layout; `data` holds the producer page and the data, and after it the data's
 * beginning once more, so that no record is in two pieces.
 */
export function ringOver(
  control: ArrayBuffer,
  data: ArrayBuffer,
  page: number,
  close: () => void,
  sizeBytes: number = (data.byteLength - page) / 2,
): RingBuffer {
  const consumer = new BigUint64Array(control, 0, 1);
  const producer = new BigUint64Array(data, 0, 1);
  const state: RingState = {
    sizeBytes,
    view: new DataView(data, page),
    bytes: new Uint8Array(data, page),
    headers: new Int32Array(data, page, sizeBytes / 4),
    consumer,
    producer,
    position: Number(Atomics.load(consumer, 0)),
    backlogBytes: () => (producer.length === 0 ? 0 : Number(Atomics.load(producer, 0)) - state.position),
    close,
    [Symbol.dispose]: close,
  };
  return state;
}

/**
 * Gives up to `budget` records to `onRecord`, as a place in `view` that is valid only during the call, and returns how
 * many. Stops at a record that a program is still writing. A record whose callback throws counts as read.
 */
export function readRing(
  ring: RingBuffer,
  onRecord: (view: DataView, offset: number, lenBytes: number) => void,
  budget = Number.POSITIVE_INFINITY,
): number {
  const state = ring as RingState;
  const { headers, consumer, producer, view } = state;
  if (producer.length === 0) return 0; // closed
  const mask = state.sizeBytes - 1;
  let position = state.position;
  let released = position;
  let count = 0;
  try {
    let end = Number(Atomics.load(producer, 0));
    while (count < budget) {
      if (position >= end) {
        end = Number(Atomics.load(producer, 0));
        if (position >= end) break;
      }
      const start = position & mask;
      const header = Atomics.load(headers, start >>> 2);
      if ((header & BUSY) !== 0) break;
      const lenBytes = header & LENGTH;
      position += (lenBytes + headerBytes + 7) & ~7;
      if ((header & DISCARDED) === 0) {
        count++;
        onRecord(view, start + headerBytes, lenBytes);
      }
      if (position - released >= releaseEveryBytes) {
        Atomics.store(consumer, 0, BigInt(position));
        released = position;
      }
    }
  } finally {
    if (consumer.length > 0) Atomics.store(consumer, 0, BigInt(position));
    state.position = position;
  }
  return count;
}
