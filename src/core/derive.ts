// Incremental derivation: a pure function from what changed in some tables to what changes in another one.
// It runs in a microtask after the inputs changed, or at once on flush(), never before all inputs are initialized.
import type { ChangeSet, Key, ReadTable, Table } from './table.ts';

/** What a derivation writes: rows to write and keys to delete, or the whole content. */
export type Delta<R> =
  | { readonly upsert?: readonly R[]; readonly delete?: readonly Key[]; readonly replaceAll?: undefined }
  | { readonly replaceAll: Iterable<R> };

// biome-ignore lint/suspicious/noExplicitAny: tables of any row type go into a derivation
type AnyTable = ReadTable<any, any>;

/** The change sets of a tuple of tables. */
export type ChangeSetsOf<T extends readonly AnyTable[]> = {
  readonly [K in keyof T]: T[K] extends { changesSince(revision: number): ChangeSet<infer R> } ? ChangeSet<R> : never;
};

/** A running derivation. */
export interface Derivation {
  readonly name: string;
  /** How often `compute` ran. */
  readonly runs: number;
  /** Brings the output up to date now, and the derivations its inputs come from before it. */
  flush(): void;
  stop(): void;
}

/** Which derivation writes a table, so that flush() can begin at the sources. */
const writers = new WeakMap<object, Derivation>();

/**
 * Keeps `to` derived from `from`. `compute` gets one change set per input table and answers with what to write;
 * a change set with `resync` means it must forget what it remembers of that table. Inputs change the output in the
 * order the tables are listed, whatever order the writes came in.
 *
 * ```ts
 * derive({ from: [pods], to: names, compute: ([pods]) => ({
 *   upsert: pods.changes.flatMap((change) => (change.after ? [{ name: change.after.name }] : [])),
 *   delete: pods.changes.flatMap((change) => (change.after ? [] : [change.key])),
 * }) });
 * ```
 */
export function derive<const T extends readonly AnyTable[], R>(options: {
  readonly name?: string;
  readonly from: T;
  // biome-ignore lint/suspicious/noExplicitAny: the output's indexes do not matter here
  readonly to: Table<R, any>;
  readonly compute: (sets: ChangeSetsOf<T>) => Delta<R>;
}): Derivation {
  const { from, to, compute } = options;
  const seen = from.map(() => 0);
  let scheduled = false;
  let stopped = false;
  let runs = 0;

  function run(): void {
    scheduled = false;
    if (stopped || !from.every((table) => table.initialized)) return;
    const changed = from.some((table, i) => table.revision !== seen[i]);
    if (!changed && to.initialized) return;
    const sets = from.map((table, i) => table.changesSince(seen[i]!)) as ChangeSetsOf<T>;
    for (const [i, set] of (sets as readonly ChangeSet<unknown>[]).entries()) seen[i] = set.revision;
    runs++;
    const delta = compute(sets);
    to.batch(() => {
      if (delta.replaceAll !== undefined) to.replaceAll(delta.replaceAll);
      else {
        to.delete(delta.delete ?? []);
        to.upsert(delta.upsert ?? []);
      }
    });
    to.markInitialized();
  }

  function schedule(): void {
    if (scheduled || stopped) return;
    scheduled = true;
    queueMicrotask(run);
  }

  const stops = from.map((table) => table.subscribe(schedule));
  const derivation: Derivation = {
    name: options.name ?? to.name,
    get runs() {
      return runs;
    },
    flush() {
      for (const table of from) writers.get(table)?.flush();
      run();
    },
    stop() {
      stopped = true;
      for (const stop of stops) stop();
      if (writers.get(to) === derivation) writers.delete(to);
    },
  };
  writers.set(to, derivation);
  schedule();
  return derivation;
}

/** Keeps `to` as the image of `from` under `map`, row by row; undefined leaves a row out. */
export function deriveEach<A, B>(options: {
  readonly name?: string;
  // biome-ignore lint/suspicious/noExplicitAny: indexes do not matter here
  readonly from: ReadTable<A, any>;
  // biome-ignore lint/suspicious/noExplicitAny: indexes do not matter here
  readonly to: Table<B, any>;
  readonly map: (row: A) => B | undefined;
}): Derivation {
  const { from, to, map } = options;
  const keyOf = new Map<Key, Key>();
  return derive({
    name: options.name,
    from: [from],
    to,
    compute([set]) {
      const { changes, resync } = set as ChangeSet<A>;
      if (resync) keyOf.clear();
      const upsert: B[] = [];
      const gone: Key[] = [];
      const rows: B[] = [];
      for (const change of changes) {
        const row = change.after === undefined ? undefined : map(change.after);
        const old = keyOf.get(change.key);
        const key = row === undefined ? undefined : to.keyOf(row);
        if (old !== undefined && old !== key) gone.push(old);
        if (key === undefined) keyOf.delete(change.key);
        else keyOf.set(change.key, key);
        if (row !== undefined) (resync ? rows : upsert).push(row);
      }
      return resync ? { replaceAll: rows } : { upsert, delete: gone };
    },
  });
}
