// A target in memory, for tests of reconcilers and of whatever feeds them.
import type { RowFailure, Target } from './reconciler.ts';
import type { Key } from './table.ts';

/** A target that remembers what it holds and what was asked of it, and fails when told to. */
export interface FakeTarget<R> extends Target<R> {
  readonly held: Map<Key, R>;
  /** Operations in order, such as `update a b`, `delete a`, `prune a b`. */
  readonly log: string[];
  /** Lets the next `times` operations on this row fail. */
  failRow(key: Key, error: string, times: number): void;
  /** Lets the next operation throw as a whole. */
  throwNext(error: string): void;
}

/** Makes a fake target, with rows it already holds from an earlier life. */
export function createFakeTarget<R>(keyOf: (row: R) => Key, existing: readonly R[] = []): FakeTarget<R> {
  const held = new Map(existing.map((row) => [keyOf(row), row]));
  const log: string[] = [];
  const failing = new Map<Key, { error: string; times: number }>();
  let throwing: string | undefined;

  function begin(operation: string, rows: readonly R[]): void {
    log.push([operation, ...rows.map(keyOf)].join(' '));
    const error = throwing;
    throwing = undefined;
    if (error !== undefined) throw new Error(error);
  }

  function each(rows: readonly R[], write: (key: Key, row: R) => void): RowFailure[] {
    const failures: RowFailure[] = [];
    for (const row of rows) {
      const key = keyOf(row);
      const failure = failing.get(key);
      if (failure !== undefined && failure.times-- > 0) failures.push({ key, error: failure.error });
      else write(key, row);
    }
    return failures;
  }

  return {
    held,
    log,
    update(rows) {
      begin('update', rows);
      return each(rows, (key, row) => held.set(key, row));
    },
    delete(rows) {
      begin('delete', rows);
      return each(rows, (key) => held.delete(key));
    },
    prune(all) {
      begin('prune', all);
      const keep = new Set(all.map(keyOf));
      for (const key of held.keys()) if (!keep.has(key)) held.delete(key);
    },
    failRow: (key, error, times) => void failing.set(key, { error, times }),
    throwNext(error) {
      throwing = error;
    },
  };
}
