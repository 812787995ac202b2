// Numbers of a queue's events that are known to be lost before its reader comes to them. As spans, so that what is lost
// in two ways, such as an event that could not be written in a file that is given up later, is counted once.

/** The numbers. */
export interface LostNumbers {
  /** These are lost, up to and without `until`. */
  add(from: number, until: number): void;
  /** The reader is past this number: what was lost up to it, it has found. */
  passed(seq: number): void;
  /** How many there are from `from` up to and without `until`; all without an argument. */
  count(from?: number, until?: number): number;
}

interface Span {
  readonly from: number;
  readonly until: number;
}

/** Begins with none. */
export function createLostNumbers(): LostNumbers {
  /** Do not touch each other. */
  let spans: Span[] = [];
  return {
    add(from, until) {
      if (from >= until) return;
      const touching = spans.filter((each) => each.from <= until && each.until >= from);
      spans = spans.filter((each) => !touching.includes(each));
      spans.push({
        from: Math.min(from, ...touching.map((each) => each.from)),
        until: Math.max(until, ...touching.map((each) => each.until)),
      });
    },
    passed(seq) {
      if (spans.every((each) => each.from > seq)) return;
      spans = spans.flatMap(({ from, until }) => (until <= seq + 1 ? [] : [{ from: Math.max(from, seq + 1), until }]));
    },
    count(from = Number.NEGATIVE_INFINITY, until = Number.POSITIVE_INFINITY) {
      return spans.reduce((sum, each) => sum + Math.max(0, Math.min(each.until, until) - Math.max(each.from, from)), 0);
    },
  };
}
