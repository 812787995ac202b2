// Where in the row of flows events were lost, and how many: every reader is told of what was lost within its part.

/** Where events were lost. Numbers are the contract's LostEventSource. */
export const LossSource = { kernelRing: 1, heldBack: 2, slowReader: 3 } as const;

/** Events that were lost before the flow `beforeSeq`. */
export interface Loss {
  readonly source: number;
  readonly beforeSeq: number;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
}

/** The losses of this agent. */
export interface LossLog {
  add(source: number, count: number, beforeSeq: number, nowMs: number): void;
  /** Counts what one reader was too slow for, who is told of it there and then. */
  overtook(count: number): void;
  /** Reads what was lost after the flow `seq` was written; without it, what will be lost from now on. */
  reader(afterSeq?: number): LossReader;
  /** All that was lost at a source. */
  total(source: number): number;
}

/** One reader's place in the log. */
export interface LossReader {
  /** The next loss before the flow `seq` or an earlier one. Counts are exact even when entries were forgotten. */
  next(seq: number): Loss | undefined;
}

interface Entry extends Loss {
  count: number;
  lastMs: number;
  /** All that was lost at this source up to and with this entry. */
  total: number;
}

const joinWithinMs = 1000;

/** Keeps at most `capacity` entries; what an older one counted is told with the next of its source. */
export function createLossLog(capacity = 1024): LossLog {
  const totals = new Map<number, number>();
  const entries: Entry[] = [];
  let firstPosition = 0;
  /** An entry that somebody has read does not grow any more. */
  let lastRead = -1;

  return {
    add(source, count, beforeSeq, nowMs) {
      if (count <= 0) return;
      const total = (totals.get(source) ?? 0) + count;
      totals.set(source, total);
      const last = entries.at(-1);
      const unread = firstPosition + entries.length - 1 > lastRead;
      if (last?.source === source && unread && last.beforeSeq === beforeSeq && nowMs - last.firstMs < joinWithinMs) {
        last.count += count;
        last.total = total;
        last.lastMs = nowMs;
        return;
      }
      entries.push({ source, count, beforeSeq, firstMs: nowMs, lastMs: nowMs, total });
      if (entries.length > capacity) {
        entries.shift();
        firstPosition++;
      }
    },
    overtook(count) {
      totals.set(LossSource.slowReader, (totals.get(LossSource.slowReader) ?? 0) + count);
    },
    reader(afterSeq) {
      // What comes is not added to what is behind this reader.
      lastRead = Math.max(lastRead, firstPosition + entries.length - 1);
      const found = afterSeq === undefined ? -1 : entries.findIndex((each) => each.beforeSeq > afterSeq);
      let position = firstPosition + (found < 0 ? entries.length : found);
      const told = new Map(totals);
      for (const each of entries.slice(position - firstPosition).reverse())
        told.set(each.source, each.total - each.count);
      return {
        next(seq) {
          const at = Math.max(position, firstPosition);
          const entry = entries[at - firstPosition];
          if (entry === undefined || entry.beforeSeq > seq) return undefined;
          lastRead = Math.max(lastRead, at);
          position = at + 1;
          const count = entry.total - (told.get(entry.source) ?? 0);
          told.set(entry.source, entry.total);
          return {
            source: entry.source,
            beforeSeq: entry.beforeSeq,
            count,
            firstMs: entry.firstMs,
            lastMs: entry.lastMs,
          };
        },
      };
    },
    total: (source) => totals.get(source) ?? 0,
  };
}
