// One map of the datapath as the agent writes it: at the start only what differs from what is there, afterwards row by
// row. A row that the kernel refuses is kept with its error and tried again; the others are not held up by it.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { isMapFull } from '../../kernel/kernel-error.ts';

/** A row that could not be written. */
export interface FailedRow {
  readonly row: string;
  readonly error: string;
  readonly attempts: number;
  readonly sinceMs: number;
}

/** How a map is doing. */
export interface KernelMapStatus {
  readonly name: string;
  readonly rows: number;
  readonly capacity: number;
  readonly failing: readonly FailedRow[];
  /** What the first pass over a map that was there already found. */
  readonly adopted: {
    readonly same: number;
    readonly changed: number;
    readonly added: number;
    readonly pruned: number;
  };
}

/** A map with one writer. Keys and values are the bytes of the generated codecs; `row` names the row for people. */
export interface KernelMap {
  readonly name: string;
  put(key: Uint8Array, value: Uint8Array, row: string): boolean;
  remove(key: Uint8Array, row: string): boolean;
  /** Everything that is to be there has been put once: removes what was not. */
  prune(): void;
  /** Tries failed rows again; answers whether any is left. */
  retry(): boolean;
  status(): KernelMapStatus;
}

const keyText = (key: Uint8Array) => Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Takes a map over. `ignore` leaves entries of other writers out of the pruning. */
export function createKernelMap(map: BpfMap, nowMs: () => number = Date.now): KernelMap {
  /** What was there before us and has not been put yet; undefined once pruned. */
  let before: Map<string, Uint8Array> | undefined = new Map(
    map.entries().map(({ key, value }) => [keyText(key), value]),
  );
  const failing = new Map<
    string,
    { key: Uint8Array; value?: Uint8Array; row: string; error: string; attempts: number; sinceMs: number }
  >();
  const adopted = { same: 0, changed: 0, added: 0, pruned: 0 };
  let rows = before.size;

  function attempt(key: Uint8Array, value: Uint8Array | undefined, row: string): boolean {
    const text = keyText(key);
    try {
      if (value === undefined) map.delete(key);
      else map.update(key, value);
      failing.delete(text);
      return true;
    } catch (error) {
      const known = failing.get(text);
      failing.set(text, {
        key,
        value,
        row,
        error: isMapFull(error) ? `the map is full (${map.maxEntries} entries)` : (error as Error).message,
        attempts: (known?.attempts ?? 0) + 1,
        sinceMs: known?.sinceMs ?? nowMs(),
      });
      return false;
    }
  }

  return {
    name: map.name,
    put(key, value, row) {
      const text = keyText(key);
      if (before !== undefined) {
        const old = before.get(text);
        if (old !== undefined) {
          before.delete(text);
          if (same(old, value)) {
            adopted.same++;
            return true;
          }
          adopted.changed++;
        } else {
          adopted.added++;
          rows++;
        }
      } else if (!failing.has(text) && map.lookup(key) === undefined) rows++;
      const ok = attempt(key, value, row);
      if (!ok && map.lookup(key) === undefined) rows--;
      return ok;
    },
    remove(key, row) {
      before?.delete(keyText(key));
      if (map.lookup(key) !== undefined) rows--;
      return attempt(key, undefined, row);
    },
    prune() {
      if (before === undefined) return;
      for (const text of before.keys()) {
        const key = Uint8Array.from(Buffer.from(text, 'latin1'));
        if (attempt(key, undefined, 'left by an earlier run')) {
          adopted.pruned++;
          rows--;
        }
      }
      before = undefined;
    },
    retry() {
      for (const each of [...failing.values()]) {
        if (each.value !== undefined && map.lookup(each.key) === undefined && attempt(each.key, each.value, each.row))
          rows++;
        else if (each.value === undefined || map.lookup(each.key) !== undefined)
          attempt(each.key, each.value, each.row);
      }
      return failing.size > 0;
    },
    status: () => ({
      name: map.name,
      rows,
      capacity: map.maxEntries,
      failing: [...failing.values()].map(({ row, error, attempts, sinceMs }) => ({ row, error, attempts, sinceMs })),
      adopted,
    }),
  };
}
