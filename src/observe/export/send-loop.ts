// Takes batches from a queue and hands them to a receiver until they have arrived or can never arrive: with growing
// pauses while it is not there, in halves when it refuses a batch whole.
import { setTimeout as pause } from 'node:timers/promises';
import type { DiskQueue } from './disk-queue.ts';
import type { QueuedEvent } from './queue-record.ts';
import { BatchRefused, ReceiverBusy, type Sink } from './sink.ts';

/** What has been sent. */
export interface SendCounts {
  sent: number;
  /** Given up because the receiver can never take them; with an event of loss, what it tells of. */
  refused: number;
  /** What delivered events of loss tell of. Where it is not known which of a batch were refused, none of it counts here. */
  told: number;
  retries: number;
}

/** A loop that sends. */
export interface SendLoop {
  readonly counts: Readonly<SendCounts>;
  /** Why nothing arrives now, and since when. */
  readonly failure: { readonly message: string; readonly sinceMs: number } | undefined;
  /** What the receiver said of the last event that was given up, and when. */
  readonly refusal: { readonly message: string; readonly atMs: number } | undefined;
  /** When the oldest event that has not arrived happened; undefined while none waits. */
  readonly oldestMs: number | undefined;
  close(): Promise<void>;
}

/** How to send. */
export interface SendLoopOptions {
  readonly queue: DiskQueue;
  readonly sink: Sink;
  readonly batch: { readonly events: number; readonly bytes: number; readonly waitMs: number };
  readonly timeoutMs: number;
  /** Events were lost in the queue: the event that says so, sent where they are missing. */
  readonly onLost: (count: number, next: QueuedEvent) => QueuedEvent;
  readonly onError: (message: string) => void;
  readonly firstPauseMs?: number;
  readonly longestPauseMs?: number;
}

const longestRetryAfterMs = 300_000;

/** Starts sending. */
export function startSending(options: SendLoopOptions): SendLoop {
  const { queue, sink, batch, timeoutMs, firstPauseMs = 500, longestPauseMs = 30_000 } = options;
  const counts: SendCounts = { sent: 0, refused: 0, told: 0, retries: 0 };
  const end = new AbortController();
  let failure: SendLoop['failure'];
  let refusal: SendLoop['refusal'];
  let oldestMs: number | undefined;
  let wake = () => {};
  queue.onFlushed = () => wake();
  end.signal.addEventListener('abort', () => wake(), { once: true });

  function more(): Promise<void> {
    return new Promise((resolve) => {
      wake = resolve;
    });
  }

  async function run(): Promise<void> {
    while (!end.signal.aborted) {
      const waiting = more();
      const taken = queue.take(batch.events, batch.bytes);
      if (taken.events.length === 0) {
        oldestMs = undefined;
        await waiting;
        await gather();
        continue;
      }
      oldestMs = taken.events[0]!.timeMs;
      const { lastSeq, lost } = taken;
      let events = taken.events;
      if (lost > 0) events = [options.onLost(lost, events[0]!), ...events];
      if (!(await deliver(events))) return;
      queue.acknowledge(lastSeq);
      if (events.length < batch.events && taken.bytes * 2 < batch.bytes) await gather();
    }
  }

  /** Others come soon: they go together. */
  async function gather(): Promise<void> {
    if (batch.waitMs > 0) await pause(batch.waitMs, undefined, { signal: end.signal }).catch(() => {});
  }

  /** False when the loop ends before all have arrived. */
  async function deliver(events: readonly QueuedEvent[]): Promise<boolean> {
    const parts: (readonly QueuedEvent[])[] = [events];
    let pauseMs = firstPauseMs;
    while (parts.length > 0) {
      if (end.signal.aborted) return false;
      const part = parts[0]!;
      let wantedMs: number | undefined;
      try {
        const { again, refused, why, retryAfterMs } = await attempt(part);
        const losses = lossesOf(part) - lossesOf(again);
        counts.sent += part.length - again.length - refused;
        if (refused > 0) giveUp(refused + losses, why ?? 'the receiver refuses them');
        else counts.told += losses;
        if (again.length === 0) {
          parts.shift();
          pauseMs = firstPauseMs;
          failure = undefined;
          continue;
        }
        if (again.length < part.length) pauseMs = firstPauseMs;
        parts[0] = again;
        wantedMs = retryAfterMs;
        fail(why ?? 'the receiver had no time');
      } catch (error) {
        if (end.signal.aborted) return false;
        const message = (error as Error).message;
        if (error instanceof BatchRefused) {
          parts.shift();
          if (part.length === 1) giveUp(1 + lossesOf(part), message);
          else {
            const half = part.length >> 1;
            parts.unshift(part.slice(0, half), part.slice(half));
          }
          continue;
        }
        if (error instanceof ReceiverBusy) wantedMs = error.retryAfterMs;
        fail(message);
      }
      counts.retries++;
      // Not all nodes at the same time.
      const waitMs = Math.max(pauseMs * (0.75 + Math.random() / 2), Math.min(wantedMs ?? 0, longestRetryAfterMs));
      await pause(waitMs, undefined, { signal: end.signal }).catch(() => {});
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
    return true;
  }

  /** A receiver that does not answer, whatever its client does, costs no more than the time it is given. */
  async function attempt(part: readonly QueuedEvent[]) {
    const signal = AbortSignal.any([end.signal, AbortSignal.timeout(timeoutMs)]);
    return await new Promise<Awaited<ReturnType<Sink['send']>>>((resolve, reject) => {
      const onAbort = () => reject(new Error(`no answer within ${timeoutMs / 1000} s`));
      signal.addEventListener('abort', onAbort, { once: true });
      sink
        .send(part, signal)
        .then(resolve, reject)
        .finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  function fail(message: string): void {
    if (failure?.message !== message) options.onError(message);
    failure = { message, sinceMs: failure?.sinceMs ?? Date.now() };
  }

  function giveUp(count: number, message: string): void {
    counts.refused += count;
    if (refusal?.message !== message) options.onError(`${count} events given up: ${message}`);
    refusal = { message, atMs: Date.now() };
  }

  const running = run().catch((error) => fail(`sending ended: ${(error as Error).stack}`));
  return {
    counts,
    get failure() {
      return failure;
    },
    get refusal() {
      return refusal;
    },
    get oldestMs() {
      return oldestMs;
    },
    async close() {
      end.abort();
      queue.onFlushed = undefined;
      await running;
      await sink.close();
    },
  };
}

/** How much was lost by what these tell. */
function lossesOf(events: readonly QueuedEvent[]): number {
  return events.reduce((sum, { tellsOf = 0 }) => sum + tellsOf, 0);
}
