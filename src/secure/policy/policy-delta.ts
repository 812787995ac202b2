// What goes into the policy compiler and what comes out of it.
import type {
  AddressRow,
  ClassRow,
  CookieRow,
  IdentityRow,
  IpcacheRow,
  NamespaceRow,
  PolicyPortRow,
  PolicyRow,
  PrefixRow,
} from '../../core/rows.ts';
import type { ChangeSet } from '../../core/table.ts';
import type { PeerChanges } from './peer-rows.ts';

/** The part of a table's change set that the compiler reads. */
export type Changes<R> = Pick<ChangeSet<R>, 'changes' | 'resync'>;

/** What changed in the sources; tables that did not change may be left out. */
export interface PolicyChanges {
  readonly identities?: Changes<IdentityRow>;
  readonly namespaces?: Changes<NamespaceRow>;
  readonly addresses?: Changes<AddressRow>;
  readonly prefixes?: Changes<PrefixRow>;
  readonly policies?: Changes<PolicyRow>;
}

/**
 * What to write, in this order, so that no packet meets a half-written policy: cookies.upsert, ports.upsert,
 * peers.upsert, ipcache.upsert (in the order given), ipcache.delete, peers.close, peers.delete, then raise the epochs
 * of `subjects` and of every address in `ipcache`, ports.delete, cookies.delete. One thing is not atomic: when policies
 * begin or cease to use a block or port name that parts both ends of a connection into other classes, a new connection
 * between them may be judged by the fallback while the addresses are written; it is judged again once epochs are raised.
 */
export interface PolicyDelta {
  readonly cookies: { readonly upsert: readonly CookieRow[]; readonly delete: readonly number[] };
  readonly ports: { readonly upsert: readonly PolicyPortRow[]; readonly delete: readonly PolicyPortRow[] };
  readonly peers: PeerChanges;
  readonly ipcache: { readonly upsert: readonly IpcacheRow[]; readonly delete: readonly string[] };
  readonly classes: { readonly upsert: readonly ClassRow[]; readonly delete: readonly number[] };
  /** Addresses of this node's pods whose verdicts may have changed. */
  readonly subjects: readonly string[];
  /** To which namespace new subjects belong; empty for the node and for pods that are not known. */
  readonly owners: readonly (readonly [subject: number, namespace: string])[];
  /** The namespace whose policies new rulesets are made of; empty where only policies of the whole cluster are. */
  readonly rulesetOwners: readonly (readonly [ruleset: number, namespace: string])[];
}

/** Hands each change to `write`; after a resync, also the known keys that are not there any more. */
export function applyChanges<R, K extends string | number>(
  set: Changes<R> | undefined,
  known: () => Iterable<K>,
  write: (key: K, row: R | undefined) => void,
): void {
  if (set === undefined) return;
  if (set.resync) {
    const present = new Set<unknown>(set.changes.map((change) => change.key));
    for (const key of [...known()]) if (!present.has(key)) write(key, undefined);
  }
  for (const change of set.changes) write(change.key as K, change.after);
}
