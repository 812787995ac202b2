// One reader's walk over the ring: where it starts, what it is shown, and when it ends. It pulls, so a reader that is
// not read costs nothing; what is overwritten meanwhile it is told as a number.
import { setImmediate } from 'node:timers/promises';
import type { FlowMatch } from './flow-filter.ts';
import type { FlowRing } from './flow-ring.ts';
import type { FlowRow } from './flow-row.ts';
import { type Loss, type LossLog, LossSource } from './loss-log.ts';

/** What a reader asks for. Times are microseconds since the epoch, both inclusive. */
export interface FlowQuery {
  /** So many of the last flows that match, of the first with `first`; 0: all. */
  readonly number: number;
  readonly first: boolean;
  readonly follow: boolean;
  readonly sinceUs?: number;
  readonly untilUs?: number;
  readonly match: FlowMatch;
}

/** What a reader is given. */
export type FlowItem =
  | { readonly kind: 'flow'; readonly row: FlowRow }
  | { readonly kind: 'lost'; readonly loss: Loss };

/** Others get their turn after so much time; filters differ too much for a number of rows. */
const turnMs = 10;
/** Rows between two looks at the clock. */
const clockRows = 64;
/** Events of several processors may be out of order by less than this. */
const disorderUs = 100_000;

/** Reads until what was asked for is told, or until `signal`. */
export async function* readFlows(
  ring: FlowRing,
  losses: LossLog,
  query: FlowQuery,
  signal: AbortSignal,
): AsyncGenerator<FlowItem, void> {
  const { number, first, follow, sinceUs, untilUs, match } = query;
  const live = follow && !first && number === 0 && sinceUs === undefined;
  const last = follow ? Number.POSITIVE_INFINITY : ring.next;
  let seq = live ? ring.next : first ? ring.oldest : await rewind(ring, query, signal);
  // Whoever begins with the oldest flow is also told what is missing before it.
  const lost = losses.reader(live ? undefined : seq === ring.oldest ? seq - 1 : seq);
  let count = 0;
  const turn = createTurn();

  while (!signal.aborted) {
    while (seq < Math.min(ring.next, last)) {
      if (turn.isOver()) {
        await turn.next();
        if (signal.aborted) return;
      }
      if (seq < ring.oldest) {
        const now = Date.now();
        const missed = Math.min(ring.oldest, last) - seq;
        seq += missed;
        losses.overtook(missed);
        yield {
          kind: 'lost',
          loss: { source: LossSource.slowReader, beforeSeq: seq, count: missed, firstMs: now, lastMs: now },
        };
        continue;
      }
      for (let loss = lost.next(seq); loss !== undefined; loss = lost.next(seq)) yield { kind: 'lost', loss };
      // The reader may have been away for long.
      if (seq < ring.oldest) continue;
      const timeUs = ring.timeUs(seq);
      if (untilUs !== undefined && timeUs > untilUs + disorderUs) return;
      if ((sinceUs !== undefined && timeUs < sinceUs) || (untilUs !== undefined && timeUs > untilUs)) {
        seq++;
        continue;
      }
      const row = ring.get(seq++);
      if (!match(row)) continue;
      yield { kind: 'flow', row };
      if (++count !== number || follow) continue;
      if (first) return;
      seq = last;
    }
    for (let loss = lost.next(seq); loss !== undefined; loss = lost.next(seq)) yield { kind: 'lost', loss };
    if (!follow || (untilUs !== undefined && Date.now() * 1000 > untilUs + disorderUs)) return;
    await more(ring, seq, signal, untilUs);
  }
}

/** Measures for how long rows are looked at without a pause. */
function createTurn(): { isOver(): boolean; next(): Promise<void> } {
  let looked = 0;
  let startedMs = performance.now();
  return {
    isOver: () => ++looked % clockRows === 0 && performance.now() - startedMs > turnMs,
    async next() {
      await setImmediate();
      startedMs = performance.now();
    },
  };
}

/** Where the last `number` flows that match begin, or what `since` asks for. */
async function rewind(ring: FlowRing, query: FlowQuery, signal: AbortSignal): Promise<number> {
  const { number, sinceUs, untilUs, match } = query;
  let count = 0;
  const turn = createTurn();
  let start = ring.next;
  for (let seq = ring.next - 1; seq >= ring.oldest; seq--) {
    if (turn.isOver()) {
      await turn.next();
      if (signal.aborted || seq < ring.oldest) return Math.max(start, ring.oldest);
    }
    const timeUs = ring.timeUs(seq);
    if (sinceUs !== undefined && timeUs < sinceUs - disorderUs) break;
    start = seq;
    if (number === 0 || (sinceUs !== undefined && timeUs < sinceUs) || (untilUs !== undefined && timeUs > untilUs))
      continue;
    if (match(ring.get(seq)) && ++count === number) break;
  }
  return start;
}

/** Waits for rows after `seq`, for a loss, or for the end of the time asked for. */
function more(ring: FlowRing, seq: number, signal: AbortSignal, untilUs: number | undefined): Promise<void> {
  if (ring.next > seq || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const timer =
      untilUs === undefined
        ? undefined
        : setTimeout(done, Math.min(Math.max(0, (untilUs + disorderUs) / 1000 - Date.now()) + 1, 2 ** 31 - 1));
    const stop = ring.subscribe(done);
    signal.addEventListener('abort', done);
    function done(): void {
      clearTimeout(timer);
      stop();
      signal.removeEventListener('abort', done);
      resolve();
    }
  });
}
