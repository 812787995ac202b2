// What to do about a lease, decided without any I/O. Ages are told by how long a version of the lease has been seen
// without a change, on one's own clock: the times written in it come from other machines' clocks and are for people.

/** A lease as the API server has it. `version` is its resourceVersion. */
export interface LeaseRecord {
  /** Undefined: given back, and free for anybody. */
  readonly holder: string | undefined;
  readonly durationMs: number;
  readonly version: string;
}

/** What was seen last, and since when by one's own clock. `record` undefined: there is no such lease. */
export interface LeaseSight {
  readonly record: LeaseRecord | undefined;
  readonly sinceMs: number;
}

/** How long a lease lasts without a renewal, and how often its holder renews it. */
export interface LeaseTerms {
  /** Written in whole seconds, rounded up: 1000 is the shortest. */
  readonly durationMs: number;
  readonly renewMs: number;
}

/** What to do next. */
export type LeaseStep =
  | { readonly step: 'look' }
  | { readonly step: 'create' }
  | { readonly step: 'take' }
  | { readonly step: 'renew' }
  | { readonly step: 'wait'; readonly untilMs: number };

/** The part of its time that a holder counts on: clocks of two machines do not run at quite the same speed, and acting
 * takes a moment. */
const countedShare = 0.9;

/** Until when a holder may act, after a renewal that it *sent* at `sentAtMs`: others count from when they see it. */
export function heldUntilMs(sentAtMs: number, terms: LeaseTerms): number {
  return sentAtMs + terms.durationMs * countedShare;
}

/**
 * The next step of `me`. `renewedAtMs` is when the renewal that counts was sent; undefined when none does.
 *
 * ```ts
 * const record = { holder: 'other', durationMs: 1000, version: '7' };
 * nextStep('me', { record, sinceMs: 0 }, { durationMs: 1000, renewMs: 300 }, undefined, 400); // wait until 1000
 * ```
 */
export function nextStep(
  me: string,
  seen: LeaseSight | undefined,
  terms: LeaseTerms,
  renewedAtMs: number | undefined,
  nowMs: number,
): LeaseStep {
  if (seen === undefined) return { step: 'look' };
  const { record, sinceMs } = seen;
  if (record === undefined) return { step: 'create' };
  if (record.holder === undefined || record.holder === '') return { step: 'take' };
  if (record.holder === me) {
    const dueMs = renewedAtMs === undefined ? nowMs : renewedAtMs + terms.renewMs;
    return nowMs >= dueMs ? { step: 'renew' } : { step: 'wait', untilMs: dueMs };
  }
  const freeMs = sinceMs + record.durationMs;
  return nowMs >= freeMs ? { step: 'take' } : { step: 'wait', untilMs: freeMs };
}

/** Whether `version` comes after `than`. Versions are numbers in practice; any that is not counts as newer. */
export function isNewer(version: string, than: string | undefined): boolean {
  if (than === undefined) return true;
  if (!/^\d+$/.test(version) || !/^\d+$/.test(than)) return version !== than;
  return BigInt(version) > BigInt(than);
}
