// The first step of the compiled policy as it stands: subject, direction, peer -> ruleset, and what changed in it.
import { type Direction, type PolicyPeerRow, policyPeerKey } from '../../core/rows.ts';
import { directions } from './local-policies.ts';
import type { PortEntry, Ruleset, Rulesets } from './rulesets.ts';

/** What changed, parted by when to write it. */
export interface PeerChanges {
  readonly upsert: readonly PolicyPeerRow[];
  /** Fallbacks that deny: written once the addresses have their classes, so that who is allowed is never shut out. */
  readonly close: readonly PolicyPeerRow[];
  readonly delete: readonly PolicyPeerRow[];
}

/** The rows. */
export interface PeerRows {
  /** Sets what a subject allows a peer; undefined means the same as the fallback. */
  set(
    subject: number,
    direction: Direction,
    peer: number,
    entries: readonly PortEntry[] | 'allow all' | undefined,
  ): void;
  deleteSubject(subject: number): void;
  deletePeer(peer: number): void;
  /** The peers with a row of their own. */
  peersOf(subject: number, direction: Direction): number[];
  settle(): PeerChanges;
  rows(): IterableIterator<PolicyPeerRow>;
}

type Rows = Record<Direction, Map<number, Ruleset>>;

/** Makes an empty set of rows. */
export function createPeerRows(rulesets: Rulesets): PeerRows {
  const subjects = new Map<number, Rows>();
  /** Rows touched since the last settle, as they were before. */
  const before = new Map<string, { row: Omit<PolicyPeerRow, 'ruleset'>; ruleset: Ruleset | undefined }>();

  function put(rows: Rows, row: Omit<PolicyPeerRow, 'ruleset'>, next: Ruleset | undefined): void {
    const of = rows[row.direction];
    const old = of.get(row.peer);
    if (old === next) {
      if (next !== undefined) rulesets.release(next); // The use just counted is the one there already is.
      return;
    }
    const key = policyPeerKey(row);
    if (!before.has(key)) before.set(key, { row, ruleset: old });
    if (old !== undefined) rulesets.release(old);
    if (next === undefined) of.delete(row.peer);
    else of.set(row.peer, next);
  }

  return {
    set(subject, direction, peer, entries) {
      let rows = subjects.get(subject);
      if (rows === undefined) {
        if (entries === undefined) return;
        rows = { ingress: new Map(), egress: new Map() };
        subjects.set(subject, rows);
      }
      const old = rows[direction].get(peer);
      let next: Ruleset | undefined;
      if (entries === 'allow all') next = rulesets.retainAgain(rulesets.allowAll);
      else if (entries !== undefined && old !== undefined && old.entries === entries) next = rulesets.retainAgain(old);
      else if (entries !== undefined) next = rulesets.retain(entries);
      put(rows, { subject, direction, peer }, next);
    },
    deleteSubject(subject) {
      const rows = subjects.get(subject);
      if (rows === undefined) return;
      for (const direction of directions) {
        for (const peer of [...rows[direction].keys()]) put(rows, { subject, direction, peer }, undefined);
      }
      subjects.delete(subject);
    },
    deletePeer(peer) {
      for (const [subject, rows] of subjects) {
        for (const direction of directions) put(rows, { subject, direction, peer }, undefined);
      }
    },
    peersOf(subject, direction) {
      return [...(subjects.get(subject)?.[direction].keys() ?? [])].filter((peer) => peer !== 0);
    },
    settle() {
      const upsert: PolicyPeerRow[] = [];
      const close: PolicyPeerRow[] = [];
      const gone: PolicyPeerRow[] = [];
      for (const { row, ruleset: old } of before.values()) {
        const now = subjects.get(row.subject)?.[row.direction].get(row.peer);
        if (now === old) continue;
        const closes = row.peer === 0 && old !== undefined && now?.entries[0]?.allow === false;
        if (now !== undefined) (closes ? close : upsert).push({ ...row, ruleset: now.number });
        else gone.push({ ...row, ruleset: old!.number });
      }
      before.clear();
      return { upsert, close, delete: gone };
    },
    *rows() {
      for (const [subject, rows] of subjects) {
        for (const direction of directions) {
          for (const [peer, { number: ruleset }] of rows[direction]) yield { subject, direction, peer, ruleset };
        }
      }
    },
  };
}
