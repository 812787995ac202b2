// Waiting for a condition, with a deadline and a message that says what did not come.
import { setTimeout as pause } from 'node:timers/promises';
import { WeirError } from '../src/core/errors.ts';

/**
 * Polls `check` until it gives something other than undefined, null or false, and returns that.
 * A `check` that throws counts as "not yet", and its last message is part of the error after `deadlineMs`; but what an
 * operator has to mend (a WeirError) will not come by waiting, and ends it at once.
 */
export async function waitFor<T>(
  what: string,
  check: () => Promise<T | undefined | null | false>,
  deadlineMs: number,
  intervalMs = 50,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  let last = '';
  for (;;) {
    try {
      const found = await check();
      if (found !== undefined && found !== null && found !== false) return found;
      last = '';
    } catch (error) {
      if (error instanceof WeirError && error.code !== 'LAB_TIMEOUT') throw error;
      last = error instanceof Error ? error.message : String(error);
    }
    if (performance.now() >= end) {
      const seconds = Math.round(deadlineMs / 100) / 10;
      throw new WeirError('LAB_TIMEOUT', `gave up waiting for ${what} after ${seconds} s${last ? `: ${last}` : ''}`);
    }
    await pause(intervalMs);
  }
}
