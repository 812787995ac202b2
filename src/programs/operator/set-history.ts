// The sets that the operator has seen, one after the other, so that the digest of one tells how far somebody is. A set that
// was never seen is on the way between two.
import { createSetDigest } from '../../secure/policy/policy-digest.ts';

/** Sets, numbered from 0, the empty one. */
export interface SetHistory {
  /** Takes the content of what has this key, or that it is gone. */
  set(key: string, content: string | undefined): void;
  /** The last number of the set with this digest; -1 when it was never seen, or too long ago. */
  positionOf(digest: string): number;
  /** The first set in which what has this key is as it is now, or gone. */
  changedAt(key: string): number;
  /** The number of the set as it is now. */
  readonly now: number;
  /** Forgets when what has this key changed: it is gone, and nobody asks. */
  forget(key: string): void;
}

/** Sets that are remembered: who is further behind counts as not having reached any. */
const remembered = 4_096;

/** Begins with the empty set. */
export function createSetHistory(limit = remembered): SetHistory {
  const digest = createSetDigest();
  const numbers = new Map<string, number>([[digest.text, 0]]);
  const changed = new Map<string, number>();
  let now = 0;
  return {
    set(key, content) {
      if (!digest.set(key, content)) return;
      changed.set(key, ++now);
      numbers.delete(digest.text);
      numbers.set(digest.text, now);
      for (const oldest of numbers.keys()) {
        if (numbers.size <= limit) break;
        numbers.delete(oldest);
      }
    },
    positionOf: (text) => numbers.get(text) ?? -1,
    changedAt: (key) => changed.get(key) ?? 0,
    get now() {
      return now;
    },
    forget: (key) => void changed.delete(key),
  };
}
