// The last things that processes did, for those who ask for them as events of their own. Readers pull, so that one who is
// not read costs nothing; what is overwritten meanwhile they are told as a number.
import type { ProcessEvent } from './process-table.ts';

/** Something that happened, or how much is missing at this place: the kernel's ring was full. */
export type ProcessNews = ProcessEvent | { readonly kind: 'lost'; readonly timeMs: number; readonly count: number };

/** What readers are given: news, or how many of them were overwritten before they came to them. */
export type ProcessItem =
  | ProcessNews
  | { readonly kind: 'overwritten'; readonly timeMs: number; readonly count: number };

/** What a reader asks for. */
export interface ProcessEventQuery {
  /** So many of the last that match; 0: all. */
  readonly number: number;
  readonly follow: boolean;
  readonly sinceMs?: number;
  readonly match: (event: ProcessEvent) => boolean;
}

/** The events that are kept. */
export interface ProcessEvents {
  add(event: ProcessNews): void;
  read(query: ProcessEventQuery, signal: AbortSignal): AsyncGenerator<ProcessItem, void>;
}

const defaultCapacity = 8_192;

/** How much of all news so far were losses, and how much these tell of. */
interface Losses {
  readonly entries: number;
  readonly count: number;
}

interface Kept {
  readonly news: ProcessNews;
  /** Of all that came before it. */
  readonly before: Losses;
}

/** Keeps the last `capacity`. */
export function createProcessEvents(capacity = defaultCapacity): ProcessEvents {
  const kept: Kept[] = [];
  const listeners = new Set<() => void>();
  let next = 0;
  let losses: Losses = { entries: 0, count: 0 };
  const oldest = () => Math.max(0, next - capacity);
  const at = (seq: number) => kept[seq % capacity]!.news;
  const lossesBefore = (seq: number) => (seq < next ? kept[seq % capacity]!.before : losses);

  /** Where a reader begins. */
  function begin({ number, follow, sinceMs, match }: ProcessEventQuery): number {
    if (number === 0) return follow && sinceMs === undefined ? next : oldest();
    let count = 0;
    let seq = next;
    while (seq > oldest() && count < number) {
      const news = at(--seq);
      if (sinceMs !== undefined && news.timeMs < sinceMs) continue;
      if (news.kind !== 'lost' && match(news)) count++;
    }
    return seq;
  }

  return {
    add(news) {
      kept[next % capacity] = { news, before: losses };
      if (news.kind === 'lost') losses = { entries: losses.entries + 1, count: losses.count + news.count };
      next++;
      for (const listener of [...listeners]) listener();
    },
    async *read(query, signal) {
      const { follow, sinceMs = Number.NEGATIVE_INFINITY, match } = query;
      const end = follow ? undefined : { seq: next, losses };
      const last = end?.seq ?? Number.POSITIVE_INFINITY;
      let seq = begin(query);
      /** What this reader has come past. */
      let past = lossesBefore(seq);
      while (!signal.aborted) {
        while (seq < Math.min(next, last) && !signal.aborted) {
          if (seq < oldest()) {
            const now =
              end !== undefined && end.seq <= oldest() ? end : { seq: oldest(), losses: lossesBefore(oldest()) };
            const lost = now.losses.count - past.count;
            const count = now.seq - seq - (now.losses.entries - past.entries);
            seq = now.seq;
            past = now.losses;
            // What told of losses is overwritten, too; what it told of is not forgotten.
            if (lost > 0) yield { kind: 'lost', timeMs: Date.now(), count: lost };
            if (count > 0) yield { kind: 'overwritten', timeMs: Date.now(), count };
            continue;
          }
          const news = at(seq++);
          if (news.kind === 'lost') past = { entries: past.entries + 1, count: past.count + news.count };
          if (news.timeMs >= sinceMs && (news.kind === 'lost' || match(news))) yield news;
        }
        if (!follow) return;
        await more(seq, signal);
      }
    },
  };

  function more(seq: number, signal: AbortSignal): Promise<void> {
    if (next > seq || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      listeners.add(done);
      signal.addEventListener('abort', done);
      function done(): void {
        listeners.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      }
    });
  }
}
