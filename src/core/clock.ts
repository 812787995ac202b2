// Time as a value that is handed in, so that retries can be tested without waiting.

/** Milliseconds and timers. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Runs `fn` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    return () => clearTimeout(timer);
  },
};

/** A clock that only moves when told to. */
export interface FakeClock extends Clock {
  /** Moves time on, running the timers that come due in order, and lets promises settle in between. */
  advance(ms: number): Promise<void>;
}

/** Makes a clock for tests that starts at `startMs`. */
export function createFakeClock(startMs = 0): FakeClock {
  let nowMs = startMs;
  let timers: { atMs: number; fn: () => void }[] = [];
  return {
    now: () => nowMs,
    after(delayMs, fn) {
      const timer = { atMs: nowMs + delayMs, fn };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
    async advance(ms) {
      const endMs = nowMs + ms;
      await settle();
      for (;;) {
        const due = timers.filter((timer) => timer.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
        if (due === undefined) break;
        timers = timers.filter((timer) => timer !== due);
        nowMs = Math.max(nowMs, due.atMs);
        due.fn();
        await settle();
      }
      nowMs = endMs;
    },
  };
}

/** Lets everything that waits on already settled promises run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}
