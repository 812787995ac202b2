// One map of the datapath as the agent writes it: at the start only what differs from what is there, afterwards row by
// row. A row that the kernel refuses is kept with its error and tried again; the others are not held up by it.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { MapType } from '../../kernel/bpf-syscall.ts';
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
  /**
   * Makes all those of the rows that are there already what they are to be, as near to one moment as the kernel can. Put
   * each of them afterwards: that counts them, and says what fails.
   */
  replaceTogether(rows: readonly { readonly key: Uint8Array; readonly value: Uint8Array }[]): void;
  /** What the kernel finds for a key now: of a prefix table, the longest prefix around it. */
  get(key: Uint8Array): Uint8Array | undefined;
  remove(key: Uint8Array, row: string): boolean;
  /** What failed for this key is no longer wanted: it is not tried again. */
  forget(key: Uint8Array): void;
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

/** Settings of a map. */
export interface KernelMapOptions {
  readonly nowMs?: () => number;
  /** Rows that are kept free for values of this kind: others find the map full before it is. */
  readonly reserve?: { readonly rows: number; readonly isFor: (value: Uint8Array) => boolean };
}

/** Takes a map over. */
export function createKernelMap(map: BpfMap, { nowMs = Date.now, reserve }: KernelMapOptions = {}): KernelMap {
  /** What was there before us and has not been put yet; undefined once pruned. */
  let before: Map<string, Uint8Array> | undefined = new Map(
    map.entries().map(({ key, value }) => [keyText(key), value]),
  );
  /** The keys of a prefix table, whose lookup finds what is around a key as well. */
  const keys = map.type === MapType.lpmTrie ? new Set(before!.keys()) : undefined;
  const failing = new Map<
    string,
    { key: Uint8Array; value?: Uint8Array; row: string; error: string; attempts: number; sinceMs: number }
  >();
  const adopted = { same: 0, changed: 0, added: 0, pruned: 0 };
  let rows = before.size;

  const has = (key: Uint8Array): boolean => keys?.has(keyText(key)) ?? map.lookup(key) !== undefined;

  /** Whether the rows that are left are kept for others. */
  function isKept(value: Uint8Array): boolean {
    return reserve !== undefined && rows >= map.maxEntries - reserve.rows && !reserve.isFor(value);
  }

  function attempt(key: Uint8Array, value: Uint8Array | undefined, row: string, was: boolean): boolean {
    const text = keyText(key);
    try {
      if (value === undefined) map.delete(key);
      else if (!was && isKept(value)) throw new Error(`the map is full (${map.maxEntries - reserve!.rows} entries)`);
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

  /** Writes or deletes, and counts what is there. */
  function write(key: Uint8Array, value: Uint8Array | undefined, row: string): boolean {
    const was = has(key);
    const ok = attempt(key, value, row, was);
    if (!ok || was === (value !== undefined)) return ok;
    rows += was ? -1 : 1;
    if (was) keys?.delete(keyText(key));
    else keys?.add(keyText(key));
    return true;
  }

  return {
    name: map.name,
    put(key, value, row) {
      const old = before?.get(keyText(key));
      if (before !== undefined && old !== undefined) {
        before.delete(keyText(key));
        if (same(old, value)) {
          adopted.same++;
          return true;
        }
        adopted.changed++;
      } else if (before !== undefined && !has(key)) adopted.added++;
      return write(key, value, row);
    },
    replaceTogether(all) {
      const differ = all.filter(({ key, value }) => {
        const now = before === undefined ? map.lookup(key) : before.get(keyText(key));
        return now !== undefined && !same(now, value);
      });
      if (differ.length < 2) return;
      try {
        map.updateBatch(differ);
      } catch {
        // Each is put on its own afterwards.
      }
    },
    get: (key) => map.lookup(key),
    remove(key, row) {
      before?.delete(keyText(key));
      return write(key, undefined, row);
    },
    forget(key) {
      failing.delete(keyText(key));
    },
    prune() {
      if (before === undefined) return;
      for (const text of before.keys()) {
        const key = Uint8Array.from(Buffer.from(text, 'latin1'));
        if (write(key, undefined, 'left by an earlier run')) adopted.pruned++;
      }
      before = undefined;
    },
    retry() {
      for (const each of [...failing.values()]) write(each.key, each.value, each.row);
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
