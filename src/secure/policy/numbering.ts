// Numbers for things that are known by their content (classes, rulesets, cookies): the same content keeps its number,
// across restarts too, and a number rests before it may mean something else, because packets and events still name it.
import type { Clock } from '../../core/clock.ts';

/** What is kept of a numbering across restarts. */
export interface NumberingState {
  readonly next: number;
  readonly numbers: readonly (readonly [content: string, number: number])[];
}

/** Hands out numbers. */
export interface Numbering {
  /** The content's number: a new one, the one it has, or the one it had not long ago. */
  acquire(content: string): number;
  /** The content is not used any more; its number rests. */
  release(content: string): void;
  /** Whether the content has a number. */
  knows(content: string): boolean;
  /** Gives the content a number that is in use already and means just that; false when the number means something here. */
  adopt(content: string, number: number): boolean;
  /** Ends the rest of what was released long enough ago, and names those numbers. */
  sweep(): number[];
  readonly size: number;
  export(): NumberingState;
}

/** Makes a numbering. `first` must be above every number that may still be in use and is not in `state`. */
export function createNumbering(options: {
  readonly clock: Clock;
  readonly restMs: number;
  readonly first: number;
  readonly state?: NumberingState;
}): Numbering {
  const { clock, restMs, first, state } = options;
  const numbers = new Map<string, number>();
  /** Contents at rest and since when, oldest first. */
  const resting = new Map<string, number>();
  const free: number[] = [];
  const taken = new Set<number>();
  let next = first;
  for (const [content, number] of state?.numbers ?? []) {
    numbers.set(content, number);
    taken.add(number);
    resting.set(content, clock.now()); // Until somebody acquires it.
    next = Math.max(next, number + 1);
  }
  next = Math.max(next, state?.next ?? 0);

  return {
    get size() {
      return numbers.size;
    },
    acquire(content) {
      resting.delete(content);
      const known = numbers.get(content);
      if (known !== undefined) return known;
      const number = free.shift() ?? next++;
      numbers.set(content, number);
      taken.add(number);
      return number;
    },
    knows: (content) => numbers.has(content),
    adopt(content, number) {
      if (numbers.has(content) || taken.has(number) || number <= 0 || number >= first) return false;
      numbers.set(content, number);
      taken.add(number);
      return true;
    },
    release(content) {
      if (!numbers.has(content)) return;
      resting.delete(content);
      resting.set(content, clock.now());
    },
    sweep() {
      const rested: number[] = [];
      for (const [content, sinceMs] of resting) {
        if (clock.now() - sinceMs < restMs) break;
        const number = numbers.get(content)!;
        resting.delete(content);
        numbers.delete(content);
        taken.delete(number);
        free.push(number);
        rested.push(number);
      }
      return rested;
    },
    export: () => ({ next, numbers: [...numbers] }),
  };
}
