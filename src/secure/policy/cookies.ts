// Cookies: numbers in verdicts that stand for the rules behind them. A cookie's content never changes. One that no
// ruleset uses any more keeps its row for a while, because events that name it may still be on their way.
import { hash } from 'node:crypto';
import type { CookieRow } from '../../core/rows.ts';
import type { Speaker } from './compiled-rule.ts';
import type { Numbering } from './numbering.ts';

/** What a cookie says. */
export interface CookieContent {
  readonly verdict: CookieRow['verdict'];
  readonly rules: readonly Speaker[];
}

/** All cookies. */
export interface Cookies {
  /** The number for a content. It lasts only when it is retained before the next settle. */
  number(content: CookieContent): number;
  retain(cookie: number): void;
  release(cookie: number): void;
  /** Ends a round: what changed in the rows since the last. */
  settle(): { upsert: CookieRow[]; delete: number[] };
  get(cookie: number): CookieRow | undefined;
  rows(): IterableIterator<CookieRow>;
}

/** Rules that resting rows may hold in all: many changes to many policies must not fill the memory. */
const maxRestingRules = 200_000;

/** Makes an empty set of cookies. */
export function createCookies(numbering: Numbering): Cookies {
  const rows = new Map<number, CookieRow>();
  const uses = new Map<number, number>();
  const contents = new Map<number, string>();
  const fresh = new Set<number>();
  const unused = new Set<number>();
  const resting = new Set<number>();
  let restingRules = 0;

  function wake(cookie: number): void {
    if (resting.delete(cookie)) restingRules -= rows.get(cookie)!.rules.length;
  }

  function forget(cookie: number, gone: number[]): void {
    if (!rows.has(cookie)) return;
    wake(cookie);
    rows.delete(cookie);
    contents.delete(cookie);
    gone.push(cookie);
  }

  return {
    number({ verdict, rules }) {
      const ordered =
        rules.length < 2
          ? rules
          : [...rules].sort((a, b) => (a.originKey < b.originKey ? -1 : a.originKey > b.originKey ? 1 : 0));
      let content = ordered.length === 1 ? ordered[0]!.originKey : ordered.map((rule) => rule.originKey).join(' ');
      // A rule may be changed from one verdict to the other and keep its place. Isolation has no place.
      if (verdict === 'deny') content = `!${content}`;
      if (content.length > 256) content = hash('sha256', content, 'base64');
      const cookie = numbering.acquire(content);
      if (!rows.has(cookie)) {
        rows.set(cookie, { cookie, verdict, rules: ordered.map((rule) => rule.origin) });
        contents.set(cookie, content);
        fresh.add(cookie);
      }
      if (!uses.has(cookie)) unused.add(cookie);
      return cookie;
    },
    retain(cookie) {
      uses.set(cookie, (uses.get(cookie) ?? 0) + 1);
      unused.delete(cookie);
    },
    release(cookie) {
      const left = (uses.get(cookie) ?? 0) - 1;
      if (left > 0) uses.set(cookie, left);
      else {
        uses.delete(cookie);
        unused.add(cookie);
      }
    },
    settle() {
      const gone: number[] = [];
      for (const cookie of unused) {
        numbering.release(contents.get(cookie)!);
        wake(cookie);
        resting.add(cookie);
        restingRules += rows.get(cookie)!.rules.length;
      }
      unused.clear();
      for (const cookie of [...resting]) if (uses.has(cookie)) wake(cookie);
      const upsert = [...fresh].map((cookie) => rows.get(cookie)!);
      fresh.clear();
      for (const cookie of numbering.sweep()) forget(cookie, gone);
      for (const cookie of resting) {
        if (restingRules <= maxRestingRules) break;
        forget(cookie, gone);
      }
      return { upsert, delete: gone };
    },
    get: (cookie) => rows.get(cookie),
    rows: () => rows.values(),
  };
}
