// Hands out ranges of a large array. A range that was let go of rests before it is given away: a program may still be
// reading it, by the row that it looked up a moment ago.

/** Ranges of one array. */
export interface SlotRanges {
  /** The first index of a free range, or undefined when there is no room. */
  take(length: number): number | undefined;
  /** Marks a range that is in use already; false when part of it is not free. */
  claim(first: number, length: number): boolean;
  release(first: number, length: number): void;
  readonly used: number;
  readonly capacity: number;
}

/** Ranges of indexes from 0 to `capacity`, in steps of `align`. */
export function createSlotRanges(options: {
  readonly capacity: number;
  readonly align: number;
  readonly restMs: number;
  readonly nowMs: () => number;
}): SlotRanges {
  const { capacity, align, restMs, nowMs } = options;
  /** Free ranges, sorted; neighbours are merged. */
  let free: { first: number; length: number }[] = [{ first: 0, length: capacity }];
  const resting: { first: number; length: number; untilMs: number }[] = [];
  let used = 0;
  const round = (length: number) => Math.ceil(length / align) * align;

  function wake(): void {
    const now = nowMs();
    let woken = 0;
    while (woken < resting.length && resting[woken]!.untilMs <= now) woken++;
    if (woken === 0) return;
    free.push(...resting.splice(0, woken).map(({ first, length }) => ({ first, length })));
    free.sort((a, b) => a.first - b.first);
    const merged: typeof free = [];
    for (const each of free) {
      const last = merged.at(-1);
      if (last !== undefined && last.first + last.length === each.first) last.length += each.length;
      else merged.push(each);
    }
    free = merged;
  }

  return {
    take(wanted) {
      const length = round(Math.max(1, wanted));
      wake();
      const at = free.findIndex((each) => each.length >= length);
      if (at < 0) return undefined;
      const range = free[at]!;
      const first = range.first;
      range.first += length;
      range.length -= length;
      if (range.length === 0) free.splice(at, 1);
      used += length;
      return first;
    },
    claim(first, wanted) {
      const length = round(Math.max(1, wanted));
      const at = free.findIndex((each) => each.first <= first && first + length <= each.first + each.length);
      if (at < 0 || first % align !== 0) return false;
      const range = free[at]!;
      const rest = [
        { first: range.first, length: first - range.first },
        { first: first + length, length: range.first + range.length - first - length },
      ];
      free.splice(at, 1, ...rest.filter((each) => each.length > 0));
      used += length;
      return true;
    },
    release(first, wanted) {
      const length = round(Math.max(1, wanted));
      used -= length;
      resting.push({ first, length, untilMs: nowMs() + restMs });
    },
    get used() {
      return used;
    },
    capacity,
  };
}
