// Counters with labels for what happens a hundred thousand times a second: a row of numbers says which labels, and text is
// made when somebody looks. How many rows there may be is limited, and what is refused is counted.

/** A row. */
interface Cell {
  value: number;
  /** The flow that was counted last, for exemplars. */
  lastSeq: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** One counter. */
export interface Counted {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly string[];
  /** Adds one to the row `key`; false when there is none yet but room for it: then it is to `begin`. */
  add(key: string | number, seq: number): boolean;
  /** Adds the row, with one. */
  begin(key: string | number, seq: number, labels: Readonly<Record<string, string>>): void;
  cells(): Iterable<Cell>;
  readonly size: number;
  /** What found no room. */
  readonly refused: number;
}

/** Makes a counter of at most `limit` rows. */
export function createCounted(name: string, help: string, labelNames: readonly string[], limit: number): Counted {
  const cells = new Map<string | number, Cell>();
  let refused = 0;
  return {
    name,
    help,
    labelNames,
    add(key, seq) {
      const known = cells.get(key);
      if (known === undefined) {
        if (cells.size < limit) return false;
        // Whoever is refused is told as if it were added, so that no labels are made for nothing.
        refused++;
        return true;
      }
      known.value++;
      known.lastSeq = seq;
      return true;
    },
    begin(key, seq, labels) {
      cells.set(key, { value: 1, lastSeq: seq, labels });
    },
    cells: () => cells.values(),
    get size() {
      return cells.size;
    },
    get refused() {
      return refused;
    },
  };
}
