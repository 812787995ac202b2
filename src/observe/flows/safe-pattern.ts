// Regular expressions of strangers: RE2's syntax, matched in time that grows with the text and not with what the pattern
// can be made to try.
import type * as Re2 from '@bufbuild/re2';
import type { Parsed } from '../../core/ip.ts';
import { loadModule } from './load-module.ts';

const maxChars = 1_000;
/** Repetitions such as (a{100}){100} are written out by the compiler: the product of all counts. */
const maxRepeats = 1_000;

/** Whether a text has a part that matches. */
export type TextMatch = (text: string) => boolean;

/** Compiles a pattern; it matches anywhere in a text unless it is anchored. */
export function compilePattern(pattern: string): Parsed<TextMatch> {
  if (pattern.length > maxChars) return { ok: false, reason: `is longer than ${maxChars} characters` };
  const repeats = [...pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)].reduce(
    (product, [, least, most]) => product * Math.max(1, Number(least), Number(most || 0)),
    1,
  );
  if (repeats > maxRepeats) return { ok: false, reason: `repeats more than ${maxRepeats} times` };
  const { RE2JS } = loadModule<typeof Re2>('@bufbuild/re2');
  try {
    const compiled = new RE2JS(pattern);
    return { ok: true, value: (text) => compiled.test(text) };
  } catch (error) {
    return { ok: false, reason: `is no regular expression of RE2: ${(error as Error).message}` };
  }
}

const maxWildcardChars = 512;

/** Compiles a text in which `*` stands for any characters; undefined when it is too long. */
export function compileWildcard(pattern: string): TextMatch | undefined {
  if (pattern.length > maxWildcardChars) return undefined;
  const parts = pattern.split('*');
  const first = parts[0]!;
  const last = parts.at(-1)!;
  if (parts.length === 1) return (text) => text === pattern;
  const middle = parts.slice(1, -1);
  return (text) => {
    if (!text.startsWith(first)) return false;
    let at = first.length;
    for (const part of middle) {
      const found = text.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return text.length - last.length >= at && text.endsWith(last);
  };
}
