// Streams of several nodes as one, by time. What has ended is merged exactly; what is followed is put in order within a
// short time, since waiting for a quiet node would mean waiting for ever.

/** Something with a time, in nanoseconds since the epoch. */
export interface Timed {
  readonly timeNs: bigint;
}

/** Merges streams that are each in order of time and that end. */
export async function* mergeByTime<T extends Timed>(streams: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  const iterators = streams.map((each) => each[Symbol.asyncIterator]());
  const heads = await Promise.all(iterators.map((each) => each.next()));
  for (;;) {
    let earliest = -1;
    for (const [i, head] of heads.entries()) {
      if (head.done) continue;
      const best = earliest < 0 ? undefined : heads[earliest]!;
      if (best === undefined || best.done || head.value.timeNs < best.value.timeNs) earliest = i;
    }
    if (earliest < 0) return;
    yield heads[earliest]!.value as T;
    heads[earliest] = await iterators[earliest]!.next();
  }
}

/** Holds what is added for `holdMs` and gives it on in order of time. */
export function createReorder<T extends Timed>(
  emit: (items: T[]) => void,
  holdMs = 200,
): { add(item: T): void; flush(): void } {
  let held: { item: T; atMs: number }[] = [];
  let timer: NodeJS.Timeout | undefined;
  const order = (a: T, b: T) => (a.timeNs < b.timeNs ? -1 : a.timeNs > b.timeNs ? 1 : 0);

  function release(before: number): void {
    timer = undefined;
    const latest = held.reduce(
      (most, { item, atMs }) => (atMs <= before && item.timeNs > most ? item.timeNs : most),
      -1n,
    );
    // What came later but is earlier goes with them.
    const due = held.filter(({ item }) => item.timeNs <= latest);
    held = held.filter(({ item }) => item.timeNs > latest);
    if (due.length > 0) emit(due.map((each) => each.item).sort(order));
    if (held.length > 0) timer = setTimeout(() => release(performance.now() - holdMs), holdMs / 2);
  }
  return {
    add(item) {
      held.push({ item, atMs: performance.now() });
      timer ??= setTimeout(() => release(performance.now() - holdMs), holdMs / 2);
    },
    flush() {
      clearTimeout(timer);
      release(Number.POSITIVE_INFINITY);
    },
  };
}
