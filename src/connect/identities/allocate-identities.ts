// Gives every set of labels that some pod has a number, and takes numbers back that nobody has used for a while.
// Pure: what exists and what is wanted are arguments, the answer is what to create and delete.
import { clusterIdentities, identityKey } from '../../core/identity.ts';

/** An identity that exists in the API. */
export interface ExistingIdentity {
  readonly id: number;
  readonly labels: readonly string[];
}

/** How many numbers there are and how full they are. */
export interface IdentityUsage {
  readonly used: number;
  readonly capacity: number;
  /** Label sets that could not get a number. */
  readonly refused: number;
}

/** Allocates identity numbers; the state is the set of identities that exist. */
export interface IdentityAllocator {
  /** An identity exists: learnt from the API, or created by us. */
  learn(identity: ExistingIdentity): void;
  forget(id: number): void;
  /** The number of these labels; a new one when they have none; undefined when there are no more numbers. */
  numberFor(labels: readonly string[]): { readonly id: number; readonly isNew: boolean } | undefined;
  /** Of two identities with the same labels the lower number counts; these are the others. */
  duplicates(): number[];
  /** What has been unused since before `unusedSinceMs`, given what is in use now. */
  unused(inUse: ReadonlySet<string>, nowMs: number, graceMs: number): number[];
  usage(): IdentityUsage;
}

/** Makes an allocator for numbers from `first` to `last`. */
export function createIdentityAllocator(range: { first: number; last: number } = clusterIdentities): IdentityAllocator {
  const byId = new Map<number, string>();
  const byKey = new Map<string, number[]>();
  const unusedSince = new Map<number, number>();
  const refused = new Set<string>();
  let next = range.first;

  function forget(id: number): void {
    const key = byId.get(id);
    if (key === undefined) return;
    byId.delete(id);
    unusedSince.delete(id);
    const ids = (byKey.get(key) ?? []).filter((other) => other !== id);
    if (ids.length === 0) byKey.delete(key);
    else byKey.set(key, ids);
  }

  return {
    learn({ id, labels }) {
      const key = identityKey(labels);
      if (byId.get(id) === key) return;
      forget(id); // It may have meant something else: nobody may get the number for that any more.
      byId.set(id, key);
      // After a restart too a number rests: go on above what is there.
      if (id >= next && id <= range.last) next = id === range.last ? range.first : id + 1;
      const ids = byKey.get(key);
      if (ids === undefined) byKey.set(key, [id]);
      else
        byKey.set(
          key,
          [...ids, id].sort((a, b) => a - b),
        );
      refused.delete(key);
    },
    forget,
    numberFor(labels) {
      const key = identityKey(labels);
      const known = byKey.get(key)?.[0];
      if (known !== undefined) return { id: known, isNew: false };
      // In turn, so that a number rests for as long as possible before it means something else.
      for (let tried = range.first; tried <= range.last; tried++) {
        const id = next;
        next = next >= range.last ? range.first : next + 1;
        if (byId.has(id)) continue;
        byId.set(id, key);
        byKey.set(key, [id]);
        refused.delete(key);
        return { id, isNew: true };
      }
      refused.add(key);
      return undefined;
    },
    duplicates: () => [...byKey.values()].flatMap((ids) => ids.slice(1)),
    unused(inUse, nowMs, graceMs) {
      const old: number[] = [];
      for (const [id, key] of byId) {
        if (inUse.has(key)) unusedSince.delete(id);
        else if (!unusedSince.has(id)) unusedSince.set(id, nowMs);
        else if (nowMs - unusedSince.get(id)! >= graceMs) old.push(id);
      }
      for (const key of refused) if (!inUse.has(key)) refused.delete(key);
      return old;
    },
    usage: () => ({ used: byId.size, capacity: range.last - range.first + 1, refused: refused.size }),
  };
}
