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

/** Takes what a reader is given, and makes pieces of it: a flow must not cost a promise. */
export interface FlowSink<T> {
  /** A flow that was asked for. The row is valid during the call. */
  flow(row: FlowRow): void;
  lost(loss: Loss): void;
  /** So much was taken that it is to be handed on before more is read. */
  readonly isFull: boolean;
  /** What was taken since the last piece; undefined when there is nothing. */
  take(): T | undefined;
}

/** Others get their turn after so much time; filters differ too much for a number of rows. */
const turnMs = 10;
/** Rows between two looks at the clock. */
const clockRows = 64;
/** Events of several processors may be out of order by less than this. */
const disorderUs = 100_000;

/** Reads until what was asked for is told, or until `signal`; gives the pieces that `sink` makes of it. */
export async function* readFlows<T>(
  ring: FlowRing,
  losses: LossLog,
  query: FlowQuery,
  sink: FlowSink<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void> {
  const { follow, untilUs } = query;
  const start = isLive(query) ? ring.next : query.first ? ring.oldest : await rewind(ring, query, signal);
  const turn = createTurn();
  const walk = createWalk(ring, losses, query, sink, start, turn);

  while (!signal.aborted) {
    let stopped: ReturnType<typeof walk.run>;
    try {
      stopped = walk.run();
    } catch (error) {
      const before = sink.take();
      if (before !== undefined) yield before;
      throw error;
    }
    const piece = sink.take();
    if (piece !== undefined) yield piece;
    if (stopped === 'end' || signal.aborted) return;
    if (stopped === 'full') continue;
    if (stopped === 'turn') {
      await turn.next();
      continue;
    }
    if (!follow || (untilUs !== undefined && Date.now() * 1000 > untilUs + disorderUs)) return;
    await more(ring, walk.seq, signal, untilUs);
    turn.begin();
  }
}

/** Whether a reader begins with what is new. */
function isLive({ follow, first, number, sinceUs }: FlowQuery): boolean {
  return follow && !first && number === 0 && sinceUs === undefined;
}

/** A walk over the rows from `start` on. */
function createWalk(
  ring: FlowRing,
  losses: LossLog,
  query: FlowQuery,
  sink: FlowSink<unknown>,
  start: number,
  turn: Turn,
) {
  const { number, first, follow, sinceUs, untilUs, match } = query;
  const last = follow ? Number.POSITIVE_INFINITY : ring.next;
  // Whoever begins with the oldest flow is also told what is missing before it.
  const lost = losses.reader(isLive(query) ? undefined : start === ring.oldest ? start - 1 : start);
  const row = ring.cursor();
  let seq = start;
  let count = 0;

  /** What was lost before the row that is next. */
  function tellLosses(): void {
    for (let loss = lost.next(seq); loss !== undefined; loss = lost.next(seq)) sink.lost(loss);
  }

  /** Goes over what was overwritten, and says how much it was. */
  function tellMissed(): void {
    const now = Date.now();
    const missed = Math.min(ring.oldest, last) - seq;
    seq += missed;
    losses.overtook(missed);
    sink.lost({ source: LossSource.slowReader, beforeSeq: seq, count: missed, firstMs: now, lastMs: now });
  }

  return {
    get seq() {
      return seq;
    },
    /** Goes on until all there is was seen, or all that was asked for, the sink is full, or it is somebody else's turn. */
    run(): 'seen' | 'end' | 'full' | 'turn' {
      // The reader may have been away for long.
      if (seq < Math.min(ring.oldest, last)) tellMissed();
      const until = Math.min(ring.next, last);
      while (seq < until) {
        if (turn.isOver()) return 'turn';
        tellLosses();
        if (sink.isFull) return 'full';
        const timeUs = sinceUs === undefined && untilUs === undefined ? 0 : ring.timeUs(seq);
        if (untilUs !== undefined && timeUs > untilUs) {
          if (timeUs > untilUs + disorderUs) return 'end';
          seq++;
          continue;
        }
        if (sinceUs !== undefined && timeUs < sinceUs) {
          seq++;
          continue;
        }
        const flow = row.moveTo(seq++);
        if (!match(flow)) continue;
        sink.flow(flow);
        if (++count !== number || follow) continue;
        if (first) return 'end';
        seq = last;
      }
      tellLosses();
      return 'seen';
    },
  };
}

interface Turn {
  isOver(): boolean;
  /** Lets others have theirs. */
  next(): Promise<void>;
  /** Others have had theirs. */
  begin(): void;
}

/** Measures for how long rows are looked at without a pause. */
function createTurn(): Turn {
  let looked = 0;
  let startedMs = performance.now();
  const begin = () => {
    startedMs = performance.now();
  };
  return {
    isOver: () => ++looked % clockRows === 0 && performance.now() - startedMs > turnMs,
    async next() {
      await setImmediate();
      begin();
    },
    begin,
  };
}

/** Where the last `number` flows that match begin, or what `since` asks for. */
async function rewind(ring: FlowRing, query: FlowQuery, signal: AbortSignal): Promise<number> {
  const { number, sinceUs, untilUs, match } = query;
  let count = 0;
  const turn = createTurn();
  let start = ring.next;
  const row = ring.cursor();
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
    if (match(row.moveTo(seq)) && ++count === number) break;
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
