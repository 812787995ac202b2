// Tables of slots: which backend's number each slot of a frontend has. Frontends that have the same backends share one.
import type { FrontendRow } from '../../core/rows.ts';
import type { ArrayMemory } from '../../kernel/mmap-array.ts';
import { takesNew } from './backend-numbers.ts';
import { maglevSize, maglevTable } from './maglev.ts';
import { createSlotRanges, type SlotRanges } from './slot-ranges.ts';

/** Where a frontend's slots are. */
export interface SlotTable {
  /** Empty for a frontend that nobody serves. */
  readonly key: string;
  readonly first: number;
  readonly count: number;
  /** Random where there was no room for a Maglev table. */
  readonly algorithm: FrontendRow['algorithm'];
}

/** The one writer of the map `lb_slots`. */
export interface SlotTables {
  /** The table of a row, placed where an earlier run had it if it is the same. Undefined when there is no room. */
  use(row: FrontendRow, numbers: readonly number[], before?: { first: number; count: number }): SlotTable | undefined;
  drop(table: SlotTable): void;
  /** Marks a range of an earlier run. */
  claim(first: number, count: number): void;
  /** Gives back the ranges of an earlier run that nobody has taken over. */
  prune(): void;
  readonly ranges: Pick<SlotRanges, 'used' | 'capacity'>;
}

interface SharedTable extends SlotTable {
  users: number;
}

const slotBytes = 4;

/** Makes the tables; `perElement` slots lie in one element of the array. */
export function createSlotTables(options: {
  readonly memory: ArrayMemory;
  readonly perElement: number;
  readonly restMs: number;
  readonly nowMs: () => number;
}): SlotTables {
  const { memory, perElement } = options;
  const ranges = createSlotRanges({ ...options, capacity: memory.lenBytes / slotBytes, align: perElement });
  const tables = new Map<string, SharedTable>();
  /** Lengths of the ranges that an earlier run left, by their first slot. */
  const left = new Map<number, number>();

  function place(content: Uint32Array, before: { first: number; count: number } | undefined): number | undefined {
    const bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
    if (before !== undefined && before.count === content.length && left.get(before.first) === before.count) {
      if (Buffer.compare(memory.read(before.first * slotBytes, bytes.length), bytes) === 0) {
        left.delete(before.first);
        return before.first;
      }
    }
    const first = ranges.take(content.length);
    if (first !== undefined) memory.write(first * slotBytes, bytes);
    return first;
  }

  return {
    use(row, numbers, before) {
      const serving = row.backends.flatMap((backend, i) => {
        if (!takesNew(backend)) return [];
        const name = `${backend.address} ${backend.port}`;
        return [{ name, weight: backend.role.weight, number: numbers[i]! }];
      });
      if (serving.length === 0) return { key: '', first: 0, count: 0, algorithm: row.algorithm };
      for (const algorithm of row.algorithm === 'maglev' ? (['maglev', 'random'] as const) : (['random'] as const)) {
        const key = tableKey(algorithm, serving);
        const shared = tables.get(key);
        if (shared !== undefined) {
          shared.users++;
          return shared;
        }
        const content = algorithm === 'random' ? randomSlots(serving) : maglevSlots(serving);
        const first = place(content, before);
        if (first === undefined) continue;
        const table = { key, first, count: content.length, algorithm, users: 1 };
        tables.set(key, table);
        return table;
      }
      return undefined;
    },
    drop({ key, first, count }) {
      const entry = tables.get(key);
      if (entry === undefined || --entry.users > 0) return;
      tables.delete(key);
      ranges.release(first, count);
    },
    claim(first, count) {
      if (count > 0 && !left.has(first) && ranges.claim(first, count)) left.set(first, count);
    },
    prune() {
      for (const [first, count] of left) ranges.release(first, count);
      left.clear();
    },
    ranges,
  };
}

interface Serving {
  readonly name: string;
  readonly weight: number;
  readonly number: number;
}

/** Says the same for the same backends with the same weights, in few bytes: there is one for every table. */
function tableKey(algorithm: FrontendRow['algorithm'], serving: readonly Serving[]): string {
  let key = algorithm === 'maglev' ? 'm' : 'r';
  for (const { number, weight } of serving) key += String.fromCharCode(number & 0xffff, number >>> 16, weight);
  return key;
}

function maglevSlots(serving: readonly Serving[]): Uint32Array {
  return maglevTable(serving, maglevSize(serving.length)).map((index) => serving[index]!.number);
}

function randomSlots(serving: readonly Serving[]): Uint32Array {
  const divisor = serving.map((each) => each.weight).reduce(greatestCommonDivisor);
  return Uint32Array.from(serving.flatMap((each) => Array<number>(each.weight / divisor).fill(each.number)));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
