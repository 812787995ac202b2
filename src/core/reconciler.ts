// Carries a table into a target (a kernel map, routes, API objects): three idempotent operations, in batches, with
// retries per row. A row is not done until the target took it; what is waiting or failing can be shown at any time.
import { type Clock, systemClock } from './clock.ts';
import { errorText } from './errors.ts';
import type { ChangeSet, Key, ReadTable } from './table.ts';

/** A row that the target refused, and why. */
export interface RowFailure {
  readonly key: Key;
  readonly error: string;
}

/** What a target answers: nothing when all went well, or the rows that failed. Throwing fails the whole batch. */
// biome-ignore lint/suspicious/noConfusingVoidType: operations without an answer are the common case
export type TargetResult = readonly RowFailure[] | undefined | void;

/** Where rows go. Every operation may be repeated at any time with the same rows. */
export interface Target<R> {
  update(rows: readonly R[]): TargetResult | Promise<TargetResult>;
  /** The rows as they were last written; they may be gone already. */
  delete(rows: readonly R[]): TargetResult | Promise<TargetResult>;
  /** Removes whatever is not in `all`. Called once the table is complete, before which nothing unknown is touched. */
  prune(all: readonly R[]): void | Promise<void>;
}

/** How far a row has come. `since` and `revision` are of the change that is on its way. */
export interface RowStatus {
  readonly key: Key;
  readonly state: 'pending' | 'done' | 'error';
  readonly operation: 'update' | 'delete';
  readonly error?: string;
  readonly attempts: number;
  readonly sinceMs: number;
  readonly revision: number;
}

/** How many rows are in which state. */
export interface StatusCounts {
  readonly pending: number;
  readonly done: number;
  readonly error: number;
}

/** A running reconciler. */
export interface Reconciler {
  readonly name: string;
  /** The rows that are not done, oldest first. */
  unfinished(): RowStatus[];
  /** The state of one row; undefined when there is no such row. */
  status(key: Key): RowStatus['state'] | undefined;
  statusCounts(): StatusCounts;
  /** Whether prune has succeeded, and if not, with what error it failed last. */
  pruned(): { readonly done: boolean; readonly error?: string };
  /** Resolves when everything up to this revision of the table is in the target. Rejects when the signal aborts. */
  waitFor(revision: number, signal?: AbortSignal): Promise<void>;
  /** Writes all rows again, because something else has changed the target. */
  writeAgain(): void;
  /** Stops after the operation that is running; what is unfinished stays unfinished. */
  stop(): Promise<void>;
}

/** Settings of a reconciler, with defaults that suit kernel maps. */
export interface ReconcilerOptions<R> {
  readonly name?: string;
  // biome-ignore lint/suspicious/noExplicitAny: indexes do not matter here
  readonly table: ReadTable<R, any>;
  readonly target: Target<R>;
  readonly batchRows?: number;
  readonly minBackoffMs?: number;
  readonly maxBackoffMs?: number;
  readonly clock?: Clock;
  /** From 0 to 1, for the jitter of retries. */
  readonly random?: () => number;
}

interface Work<R> {
  key: Key;
  operation: 'update' | 'delete';
  row: R;
  revision: number;
  /** The first change of the row that the target does not have. */
  oldestRevision: number;
  sinceMs: number;
  attempts: number;
  error?: string;
  dueMs: number;
}

/** Starts carrying `table` into `target`. */
export function createReconciler<R>(options: ReconcilerOptions<R>): Reconciler {
  const { table, target, batchRows = 1000, minBackoffMs = 50, maxBackoffMs = 30_000 } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? Math.random;
  const name = options.name ?? table.name;
  const work = new Map<Key, Work<R>>();
  const waiters = new Set<() => void>();
  const prune = { wanted: true, done: false, attempts: 0, dueMs: 0, error: undefined as string | undefined };
  let seen = 0;
  let running: Promise<void> | undefined;
  let stopped = false;
  let cancelTimer = () => {};

  function backoffMs(attempts: number): number {
    const ms = Math.min(maxBackoffMs, minBackoffMs * 2 ** Math.min(attempts - 1, 30));
    return ms * (0.5 + random() / 2);
  }

  function take(set: ChangeSet<R>): void {
    seen = set.revision;
    if (set.resync) {
      // Deletions may have been missed: prune finds them.
      work.clear();
      prune.wanted = true;
      prune.dueMs = 0;
    }
    for (const { key, before, after, revision } of set.changes) {
      const row = after ?? before!;
      const operation = after === undefined ? 'delete' : 'update';
      const now = clock.now();
      const oldestRevision = work.get(key)?.oldestRevision ?? revision;
      work.set(key, { key, operation, row, revision, oldestRevision, sinceMs: now, attempts: 0, dueMs: now });
    }
  }

  async function apply(operation: 'update' | 'delete', batch: readonly Work<R>[]): Promise<void> {
    const failures = await attempt(operation, batch);
    for (const item of batch) {
      const error = failures.get(item.key);
      const current = work.get(item.key);
      if (current !== item) {
        // A newer change of the row has come meanwhile.
        if (current !== undefined && error === undefined) current.oldestRevision = item.revision + 1;
        continue;
      }
      if (error === undefined) work.delete(item.key);
      else {
        item.attempts++;
        item.error = error;
        item.dueMs = clock.now() + backoffMs(item.attempts);
      }
    }
  }

  async function attempt(operation: 'update' | 'delete', batch: readonly Work<R>[]): Promise<Map<Key, string>> {
    try {
      const failed = (await target[operation](batch.map((item) => item.row))) ?? [];
      return new Map(failed.map((failure) => [failure.key, failure.error]));
    } catch (thrown) {
      if (batch.length === 1) return new Map([[batch[0]!.key, errorText(thrown)]]);
      // One bad row must not hold up the others: find it by writing them one at a time.
      const failures = new Map<Key, string>();
      for (const item of batch) {
        for (const [key, error] of await attempt(operation, [item])) failures.set(key, error);
      }
      return failures;
    }
  }

  async function pruneIfDue(): Promise<void> {
    if (!prune.wanted || !table.initialized || prune.dueMs > clock.now()) return;
    prune.wanted = false;
    try {
      await target.prune([...table.rows()]);
      prune.done = true;
      prune.error = undefined;
      prune.attempts = 0;
    } catch (thrown) {
      prune.wanted = true;
      prune.error = errorText(thrown);
      prune.attempts++;
      prune.dueMs = clock.now() + backoffMs(prune.attempts);
    }
  }

  async function run(): Promise<void> {
    while (!stopped) {
      const now = clock.now();
      const due = [...work.values()].filter((item) => item.dueMs <= now);
      // Deletions first: they make room for what follows.
      const operation = due.some((item) => item.operation === 'delete') ? 'delete' : 'update';
      const batch = due.filter((item) => item.operation === operation).slice(0, batchRows);
      if (batch.length > 0) await apply(operation, batch);
      else if (prune.wanted && table.initialized && prune.dueMs <= now) await pruneIfDue();
      else break;
      for (const check of [...waiters]) check();
    }
  }

  function wake(): void {
    if (stopped) return;
    cancelTimer();
    running ??= run().finally(() => {
      running = undefined;
      for (const check of [...waiters]) check();
      setTimer();
    });
  }

  function setTimer(): void {
    if (stopped) return;
    let dueMs = Number.POSITIVE_INFINITY;
    for (const item of work.values()) dueMs = Math.min(dueMs, item.dueMs);
    if (prune.wanted && table.initialized) dueMs = Math.min(dueMs, prune.dueMs);
    if (dueMs !== Number.POSITIVE_INFINITY) cancelTimer = clock.after(Math.max(0, dueMs - clock.now()), wake);
  }

  function reached(revision: number): boolean {
    if (seen < revision) return false;
    for (const item of work.values()) if (item.oldestRevision <= revision) return false;
    return true;
  }

  const unsubscribe = table.subscribe(() => {
    take(table.changesSince(seen));
    queueMicrotask(wake);
  });
  take(table.changesSince(seen));
  queueMicrotask(wake);

  return {
    name,
    unfinished: () =>
      [...work.values()]
        .sort((a, b) => a.sinceMs - b.sinceMs)
        .map(({ key, operation, error, attempts, sinceMs, revision }) => {
          const state = error === undefined ? 'pending' : 'error';
          return { key, state, operation, attempts, sinceMs, revision, ...(error !== undefined && { error }) };
        }),
    status(key) {
      const item = work.get(key);
      if (item !== undefined) return item.error === undefined ? 'pending' : 'error';
      return table.has(key) ? 'done' : undefined;
    },
    statusCounts() {
      let error = 0;
      let updates = 0;
      for (const item of work.values()) {
        if (item.error !== undefined) error++;
        if (item.operation === 'update') updates++;
      }
      return { pending: work.size - error, done: Math.max(0, table.size - updates), error };
    },
    pruned: () => ({ done: prune.done, ...(prune.error !== undefined && { error: prune.error }) }),
    waitFor(revision, signal) {
      return new Promise((resolve, reject) => {
        const check = () => {
          if (!reached(revision) && !signal?.aborted) return;
          waiters.delete(check);
          signal?.removeEventListener('abort', check);
          if (signal?.aborted) reject(signal.reason);
          else resolve();
        };
        waiters.add(check);
        signal?.addEventListener('abort', check);
        check();
      });
    },
    writeAgain() {
      take(table.changesSince(0));
      wake();
    },
    async stop() {
      stopped = true;
      unsubscribe();
      cancelTimer();
      await running;
    },
  };
}
