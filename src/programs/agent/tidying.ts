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
/** After so many it is worth a tenth of a second to move together what is left; while they go on, a short collection. */
const thoroughChanges = 500;

/** `work` counts up with what is done. */
export function createTidying(work: () => number, collect: (thorough: boolean) => void = collectAll): Tidying {
  let tidiedAt = work();
  let before = tidiedAt;
  const tidy = (thorough: boolean) => {
    collect(thorough);
    tidiedAt = work();
  };
  return {
    now: () => tidy(true),
    look() {
      const current = work();
      const idle = current === before;
      before = current;
      const changes = current - tidiedAt;
      if (changes >= (idle ? burstChanges : thoroughChanges)) tidy(idle && changes >= thoroughChanges);
    },
  };
}

/** Thorough: moves things together, so that pages become free as a whole. Else twice, because what the first round frees
 * holds other things. */
function collectAll(thorough: boolean): void {
  if (thorough) globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  else {
    globalThis.gc?.();
    globalThis.gc?.();
  }
  returnFreedMemory();
}
