// Streams of several nodes as one, by time. What has ended is merged exactly; what is followed is put in order within a
// short time, since waiting for a quiet node would mean waiting for ever.

import { WeirError } from '../../../core/errors.ts';

/** Something with a time, in nanoseconds since the epoch. */
export interface Timed {
  readonly timeNs: bigint;
}

/** Merges streams that are each in order of time and that end. Who stops early ends them all. */
export async function* mergeByTime<T extends Timed>(streams: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  const iterators = streams.map((each) => each[Symbol.asyncIterator]());
  try {
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
  } finally {
    // A stream that is left as it is keeps its connection, and that the process. One that has failed is over.
    for (const each of iterators) void each.return?.(undefined).catch(() => {});
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

/** Shows what several streams give in pieces as it comes, about in order of time, until all of them end. */
export async function followAll<T extends Timed>(
  streams: readonly AsyncIterable<Iterable<T>>[],
  show: (item: T) => Promise<void> | undefined,
): Promise<void> {
  if (streams.length === 1) {
    for await (const piece of streams[0]!)
      for (const item of piece) {
        // Nothing to wait for is the rule, and waiting for it would be most of what an item costs.
        const shown = show(item);
        if (shown !== undefined) await shown;
      }
    return;
  }
  let written: Promise<void> | undefined;
  const reorder = createReorder<T>((items) => {
    for (const item of items) written = show(item) ?? written;
  });
  await Promise.all(
    streams.map(async (stream) => {
      for await (const piece of stream) {
        // A terminal that does not keep up holds back the nodes, which count what is lost.
        await written;
        for (const item of piece) reorder.add(item);
      }
    }),
  );
  reorder.flush();
}

/** A stream that ends where the node fails, after `onError` has been told. */
export async function* tolerant<T>(stream: AsyncIterable<T>, onError: (error: WeirError) => void): AsyncGenerator<T> {
  try {
    yield* stream;
  } catch (error) {
    if (!(error instanceof WeirError) || error.code !== 'AGENT_UNREACHABLE') throw error;
    onError(error);
  }
}
