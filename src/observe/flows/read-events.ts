// Reads the datapath's events without ever being woken by one: a timer looks every 10 ms while events come, and less
// and less often while none do. What the kernel could not deliver is read from its counters.
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
  readonly busyMs?: number;
  readonly idleMs?: number;
}

const budget = 32_768;
const housekeepingMs = 1_000;

/** Starts reading; the returned function stops it. */
export function readEvents(options: ReadEventsOptions): () => void {
  const { ring, onRecord, onRead, onError, busyMs = 10, idleMs = 100 } = options;
  let timer: NodeJS.Timeout | undefined;
  let pauseMs = busyMs;
  let quietSince = 0;
  let toldAt = 0;

  function look(): void {
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
      pauseMs = busyMs;
      quietSince = now;
    } else if (now - quietSince > 200) pauseMs = Math.min(idleMs, pauseMs * 2);
    // More than fits into one turn: others get theirs, then it goes on at once.
    timer = setTimeout(look, count >= budget || ring.backlogBytes() > ring.sizeBytes / 2 ? 0 : pauseMs);
  }
  look();
  return () => clearTimeout(timer);
}
