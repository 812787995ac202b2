// Gives memory back after work: starting, and a burst of pods, take memory that running does not, and the engine collects
// it only when it needs more. Done when the work has just stopped, so that it holds nothing up.
import { returnFreedMemory } from '../../kernel/libc.ts';

/** When memory is given back. */
export interface Tidying {
  now(): void;
  /** To be called at regular intervals. */
  look(): void;
}

/** So many changes are a burst: fewer leave little behind, and a collection takes some 20 ms. */
const burstChanges = 20;

/** `work` counts up with what is done. */
export function createTidying(work: () => number, collect: () => void = collectAll): Tidying {
  let tidiedAt = work();
  let before = tidiedAt;
  const now = () => {
    collect();
    tidiedAt = work();
  };
  return {
    now,
    look() {
      const current = work();
      const idle = current === before;
      before = current;
      if (idle && current - tidiedAt >= burstChanges) now();
    },
  };
}

/** Twice, because what the first round frees holds other things. */
function collectAll(): void {
  globalThis.gc?.();
  globalThis.gc?.();
  returnFreedMemory();
}
