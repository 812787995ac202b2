// A list of ends that may be nearly all of them: kept as what it is made of, and written out only as far as it is asked for.

/** The members of a class, but for some. Both in rising order. */
export interface Bulk {
  readonly members: readonly number[];
  /** Equal numbers have equal members. */
  readonly number: number;
  readonly without: readonly number[];
}

/** Places of ends, each once. */
export interface EndList {
  readonly count: number;
  /** Equal lists have equal keys. */
  readonly key: string;
  /** The first ones. */
  take(most: number): number[];
}

/** A list of single ends and parts of classes, which have nobody in common. */
export function endList(single: readonly number[], bulk: readonly Bulk[]): EndList {
  const count = bulk.reduce((sum, { members, without }) => sum + members.length - without.length, single.length);
  return {
    count,
    get key() {
      return `${single.join()} ${bulk.map(({ number, without }) => `${number}-${without.join()}`).join(' ')}`;
    },
    take(most) {
      const taken = single.slice(0, most);
      for (const { members, without } of bulk) {
        const left = new Set(without);
        for (const each of members) {
          if (taken.length >= most) return taken;
          if (!left.has(each)) taken.push(each);
        }
      }
      return taken;
    },
  };
}
