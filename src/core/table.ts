// A table of immutable rows with a revision per batch of writes. Sources write tables, derivations turn tables
// into tables, reconcilers carry them into the kernel. The recent history is kept, bounded, so that a reader
// gets what changed since it last looked; one that fell too far behind is told to read everything again.
import { deepEqual } from './equal.ts';

/** A primary key or an index value. */
export type Key = string | number;

/** What happened to one row: inserted (no before), replaced, or deleted (no after). */
export interface Change<R> {
  readonly key: Key;
  readonly before?: R;
  readonly after?: R;
  readonly revision: number;
}

/** What changed between two revisions, one entry per key. */
export interface ChangeSet<R> {
  readonly changes: readonly Change<R>[];
  /** The table's revision these changes lead to. */
  readonly revision: number;
  /** The reader fell behind: drop everything known, `changes` inserts every row there is. */
  readonly resync: boolean;
}

/** How to make a table. */
export interface TableOptions<R, I extends string> {
  readonly name: string;
  readonly key: (row: R) => Key;
  /** Secondary indexes: the values under which a row is found by `by(index, value)`. */
  readonly indexes?: Readonly<Record<I, (row: R) => Key | readonly Key[] | undefined>>;
  /** Changes kept for readers, at least; the history never outgrows the larger of this and the row count. */
  readonly historyLimit?: number;
}

/** The part of a table that readers see. */
export interface ReadTable<R, I extends string = string> {
  readonly name: string;
  /** Grows by one with each batch that changed something. */
  readonly revision: number;
  readonly size: number;
  /** The source has written its first full list; until then absence of a row means nothing. */
  readonly initialized: boolean;
  keyOf(row: R): Key;
  get(key: Key): R | undefined;
  has(key: Key): boolean;
  rows(): IterableIterator<R>;
  by(index: I, value: Key): R[];
  /** Changes after `revision`, coalesced per key. Revision 0 gives every row as an insert. */
  changesSince(revision: number): ChangeSet<R>;
  /** Batches as they come, beginning with all rows; what happens while the reader is busy is coalesced. */
  changes(options?: { signal?: AbortSignal; since?: number }): AsyncIterableIterator<ChangeSet<R>>;
  /** Calls `listener` once per batch, at once; and with no changes when the table becomes initialized. */
  subscribe(listener: (set: ChangeSet<R>) => void): () => void;
  whenInitialized(): Promise<void>;
}

/** A table as its one writer sees it. */
export interface Table<R, I extends string = string> extends ReadTable<R, I> {
  /** Writes rows; a row equal to the one there is no change. */
  upsert(rows: R | readonly R[]): void;
  /** Deletes by key; unknown keys are no change. */
  delete(keys: Key | readonly Key[]): void;
  /** Makes the table hold exactly `rows`, writing only the differences. */
  replaceAll(rows: Iterable<R>): void;
  /** Runs `fn`; all its writes are one revision and one call of each listener. What was written stays if it throws. */
  batch(fn: () => void): void;
  markInitialized(): void;
}

const defaultHistoryLimit = 1024;

/** Makes an empty table. */
export function createTable<R, I extends string = never>(options: TableOptions<R, I>): Table<R, I> {
  const { name, key: keyOf, historyLimit = defaultHistoryLimit } = options;
  const rows = new Map<Key, R>();
  const indexes = createIndexes(options);
  const listeners = new Set<(set: ChangeSet<R>) => void>();
  const notices: ChangeSet<R>[] = [];
  /** Changes in order of revision: whose, what was there before, and which. Those up to `forgottenRevision` are no longer
   * there. What a change led to is not kept: later readers get the row as it is now. */
  let history = { keys: [] as Key[], befores: [] as (R | undefined)[], revisions: [] as number[] };
  let forgottenRevision = 0;
  let revision = 0;
  let initialized = false;
  let depth = 0;
  let notifying = false;
  /** Rows as they were before the batch that is open. */
  let open = new Map<Key, R | undefined>();

  function put(key: Key, after: R | undefined): void {
    const before = rows.get(key);
    if (before === after || (before !== undefined && after !== undefined && deepEqual(before, after))) return;
    if (!open.has(key)) open.set(key, before);
    if (after === undefined) rows.delete(key);
    else rows.set(key, after);
    indexes.move(key, before, after);
  }

  function batch(fn: () => void): void {
    depth++;
    try {
      fn();
    } finally {
      if (--depth === 0) commit();
    }
  }

  function commit(): void {
    const touched = open;
    if (touched.size === 0) return;
    open = new Map();
    const next = revision + 1;
    const changes: Change<R>[] = [];
    for (const [key, before] of touched) {
      const change = changeOf(key, before, rows.get(key), next);
      if (change !== undefined) changes.push(change);
    }
    if (changes.length === 0) return;
    revision = next;
    for (const { key, before } of changes) {
      history.keys.push(key);
      history.befores.push(before);
      history.revisions.push(revision);
    }
    trimHistory();
    notify({ changes, revision, resync: false });
  }

  function trimHistory(): void {
    const limit = Math.max(historyLimit, rows.size);
    const { keys, befores, revisions } = history;
    if (keys.length <= limit * 2) return;
    // Whole revisions are forgotten, never a part of one.
    forgottenRevision = revisions[keys.length - limit - 1]!;
    const from = firstAfter(revisions, forgottenRevision);
    history = { keys: keys.slice(from), befores: befores.slice(from), revisions: revisions.slice(from) };
  }

  function notify(set: ChangeSet<R>): void {
    notices.push(set);
    if (notifying) return; // A listener wrote: its batch is told after the current one, to everybody in the same order.
    notifying = true;
    let failure: { thrown: unknown } | undefined;
    for (let notice = notices.shift(); notice !== undefined; notice = notices.shift()) {
      for (const listener of [...listeners]) {
        try {
          listener(notice);
        } catch (thrown) {
          failure ??= { thrown };
        }
      }
    }
    notifying = false;
    if (failure !== undefined) throw failure.thrown;
  }

  function changesSince(since: number): ChangeSet<R> {
    if (since >= revision) return { changes: [], revision, resync: false };
    if (since < forgottenRevision || since === 0) {
      const changes = [...rows].map(([key, after]): Change<R> => ({ key, after, revision }));
      return { changes, revision, resync: since !== 0 };
    }
    const first = new Map<Key, R | undefined>();
    for (let i = firstAfter(history.revisions, since); i < history.keys.length; i++) {
      const key = history.keys[i]!;
      if (!first.has(key)) first.set(key, history.befores[i]);
    }
    const changes: Change<R>[] = [];
    for (const [key, before] of first) {
      const change = changeOf(key, before, rows.get(key), revision);
      if (change !== undefined) changes.push(change);
    }
    return { changes, revision, resync: false };
  }

  const table: Table<R, I> = {
    name,
    keyOf,
    get revision() {
      return revision;
    },
    get size() {
      return rows.size;
    },
    get initialized() {
      return initialized;
    },
    get: (key) => rows.get(key),
    has: (key) => rows.has(key),
    rows: () => rows.values(),
    by: (index, value) => indexes.keys(index, value).map((key) => rows.get(key)!),
    batch,
    upsert(given) {
      const list = Array.isArray(given) ? (given as readonly R[]) : [given as R];
      batch(() => {
        for (const row of list) put(keyOf(row), row);
      });
    },
    delete(given) {
      const list = typeof given === 'object' ? given : [given];
      batch(() => {
        for (const key of list) put(key, undefined);
      });
    },
    replaceAll(given) {
      batch(() => {
        const gone = new Set(rows.keys());
        for (const row of given) {
          const key = keyOf(row);
          gone.delete(key);
          put(key, row);
        }
        for (const key of gone) put(key, undefined);
      });
    },
    changesSince,
    changes: (iterate) => iterateChanges(table, iterate?.since ?? 0, iterate?.signal),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    markInitialized() {
      if (initialized) return;
      initialized = true;
      notify({ changes: [], revision, resync: false });
    },
    whenInitialized() {
      if (initialized) return Promise.resolve();
      return new Promise((resolve) => {
        const stop = table.subscribe(() => {
          if (!initialized) return;
          stop();
          resolve();
        });
      });
    },
  };
  return table;
}

function changeOf<R>(key: Key, before: R | undefined, after: R | undefined, revision: number): Change<R> | undefined {
  if (before === undefined) return after === undefined ? undefined : { key, after, revision };
  if (after === undefined) return { key, before, revision };
  return before === after || deepEqual(before, after) ? undefined : { key, before, after, revision };
}

/** The position of the first change after `revision`. */
function firstAfter(revisions: readonly number[], revision: number): number {
  let low = 0;
  let high = revisions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (revisions[middle]! <= revision) low = middle + 1;
    else high = middle;
  }
  return low;
}

function createIndexes<R, I extends string>(options: TableOptions<R, I>) {
  const list = Object.entries(options.indexes ?? {}) as [I, (row: R) => Key | readonly Key[] | undefined][];
  // Mostly one row has a value: a set for each would be most of an index's memory.
  const found = new Map<I, Map<Key, Key | Set<Key>>>(list.map(([index]) => [index, new Map()]));
  const valuesOf = (extract: (row: R) => Key | readonly Key[] | undefined, row: R | undefined): readonly Key[] => {
    const value = row === undefined ? undefined : extract(row);
    if (value === undefined) return [];
    return typeof value === 'object' ? value : [value];
  };
  return {
    move(key: Key, before: R | undefined, after: R | undefined): void {
      for (const [index, extract] of list) {
        const keys = found.get(index)!;
        for (const value of valuesOf(extract, before)) {
          const known = keys.get(value);
          if (known === key || (known instanceof Set && known.delete(key) && known.size === 0)) keys.delete(value);
        }
        for (const value of valuesOf(extract, after)) {
          const known = keys.get(value);
          if (known === undefined) keys.set(value, key);
          else if (known instanceof Set) known.add(key);
          else if (known !== key) keys.set(value, new Set([known, key]));
        }
      }
    },
    keys(index: I, value: Key): Key[] {
      const keys = found.get(index);
      if (keys === undefined) throw new Error(`table ${options.name} has no index ${index}`);
      const known = keys.get(value) ?? [];
      return typeof known === 'object' ? [...known] : [known];
    },
  };
}

async function* iterateChanges<R>(
  table: ReadTable<R, never>,
  since: number,
  signal?: AbortSignal,
): AsyncIterableIterator<ChangeSet<R>> {
  let seen = since;
  let wake = () => {};
  const stop = table.subscribe(() => wake());
  const aborted = () => wake();
  signal?.addEventListener('abort', aborted);
  try {
    while (!signal?.aborted) {
      const set = table.changesSince(seen);
      seen = set.revision;
      if (set.changes.length > 0 || set.resync) yield set;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    stop();
    signal?.removeEventListener('abort', aborted);
  }
}
