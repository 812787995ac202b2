// Reads the datapath's events without ever being woken by one: a timer looks, seldom enough that a look finds many events,
// and often enough that the ring never comes near to being full. What the kernel could not deliver is read from its counters.
import { type RingBuffer, readRing } from '../../kernel/ring-buffer.ts';

/** How to read. */
export interface ReadEventsOptions {
  readonly ring: RingBuffer;
  readonly onRecord: (view: DataView, offset: number, lenBytes: number) => void;
  /** After each look that found something, and about once a second otherwise. */
  readonly onRead: (records: number) => void;
  readonly onError: (error: unknown) => void;
  /** Before each look. */
  readonly before?: () => void;
}

const budget = 32_768;
const housekeepingMs = 1_000;
/** Between two looks while events come: what followers wait for. */
const busyMs = 50;
/** While none do. */
const idleMs = 100;
const quietMs = 200;
/** Each look costs a little: no more of them than this, even in a storm. */
const leastMs = 2;
/** So much of the ring may fill between two looks; a storm that begins between them finds the rest. */
const share = 1 / 8;

/** Starts reading; the returned function stops it. */
export function readEvents(options: ReadEventsOptions): () => void {
  const { ring, onRecord, onRead, onError } = options;
  let timer: NodeJS.Timeout | undefined;
  let pauseMs = busyMs;
  let lookedAt = performance.now();
  let quietSince = 0;
  let toldAt = 0;

  function look(): void {
    const from = performance.now();
    const waiting = ring.backlogBytes();
    const passedMs = from - lookedAt;
    lookedAt = from;
    let count = 0;
    try {
      options.before?.();
      count = readRing(ring, onRecord, budget);
    } catch (error) {
      onError(error);
    }
    const now = performance.now();
    if (count > 0 || now - toldAt >= housekeepingMs) {
      toldAt = now;
      try {
        onRead(count);
      } catch (error) {
        onError(error);
      }
    }
    if (count > 0) {
      pauseMs = pauseAfter(waiting, passedMs, ring.sizeBytes);
      quietSince = now;
    } else if (now - quietSince > quietMs) pauseMs = Math.min(idleMs, pauseMs * 2);
    // More than fits into one turn: others get theirs, then it goes on at once.
    timer = setTimeout(look, count >= budget || ring.backlogBytes() > ring.sizeBytes / 2 ? 0 : pauseMs);
  }
  look();
  return () => clearTimeout(timer);
}

/** How long until the next look, when `bytes` came within `passedMs`: until a share of the ring has filled at that rate. */
export function pauseAfter(bytes: number, passedMs: number, ringBytes: number): number {
  const untilShareMs = (ringBytes * share * Math.max(1, passedMs)) / Math.max(1, bytes);
  return Math.max(leastMs, Math.min(busyMs, Math.floor(untilShareMs)));
}
