// The two policy maps, and what becomes of rows for which there is no room: never an opening. A ruleset that did not fit
// whole is pointed to by nobody; a peer whose ruleset denies something and that could not be given it closes its subject's
// fallback, because there the fallback would let through what the ruleset does not. What was there before stays only if it
// allows nothing that the new one does not; else the row, which is there and needs no room, is made to point to nothing.
// Addresses without room are judged as the block around them: subjects whose policy tells the two apart take from the block
// what those addresses may not have. Rows of peers beyond the share of a subject's owner are treated as if the map were full,
// and so are rows of ports beyond the share of whose policies made them.
import { type Direction, type PolicyPeerRow, type PolicyPortRow, policyPeerKey } from '../../core/rows.ts';
import { datapathMaps, Direction as KernelDirection } from '../../kernel/datapath.gen.ts';
import type { KernelMap } from './kernel-map.ts';
import { createRulesetRows, type RulesetMeaning } from './ruleset-rows.ts';

/** Addresses of one class have no row, and are judged as another class meanwhile: 0 where nothing is known around them. */
export interface StandIn {
  readonly of: number;
  readonly as: number;
}

/** How many rows one owner may have. */
export interface OwnersShare {
  readonly peers: number;
  readonly ports: number;
}

/** An owner that needs more rows of a map than it may have. */
export interface OverShare {
  readonly owner: string;
  readonly map: 'policy_peer' | 'policy_ports';
  readonly share: number;
}

/** The rows of policy in the kernel. */
export interface PolicyRows {
  /** Says to whom a subject belongs; the empty name may have any number of rows. */
  own(subject: number, owner: string): void;
  /** The same of a ruleset, before its rows. */
  ownRuleset(ruleset: number, owner: string): void;
  putPort(row: PolicyPortRow): void;
  removePort(row: PolicyPortRow): void;
  putPeer(row: PolicyPeerRow): void;
  removePeer(row: Omit<PolicyPeerRow, 'ruleset'>): void;
  /**
   * Names all stand-ins there are. Where one is allowed more than whom it stands for, it is allowed what the fallback
   * allows; and where that is too much, the fallback closes. `again` looks at those that are known, too. True when something changed.
   */
  standIn(all: readonly StandIn[], again?: boolean): boolean;
  /** Tries again what did not fit; call it after the maps themselves have tried. True when something fits now. */
  retry(): boolean;
  /** Peers that wait for room, and the directions of subjects that are closed for them. */
  status(): { readonly waiting: number; readonly closed: readonly string[]; readonly over: readonly OverShare[] };
}

/** A ruleset without entries: as the fallback it denies everything, for a peer it says what the fallback says. */
const noRuleset = 0;

/** A peer whose row did not fit. */
interface Waiting {
  readonly row: PolicyPeerRow;
  /** The ruleset that the kernel has for it meanwhile. */
  readonly old: number | undefined;
  /** The subject's fallback is closed for it. */
  readonly closes: boolean;
}

/** What a stand-in takes from a subject in one direction. */
interface Taken {
  /** The fallback is closed. */
  readonly closes: boolean;
  /** The stand-in's own row points to nothing. */
  readonly narrows: boolean;
}

const nothingTaken: Taken = { closes: false, narrows: false };

const noShares: OwnersShare = { peers: Number.POSITIVE_INFINITY, ports: Number.POSITIVE_INFINITY };

/** Takes the maps over. All subjects of one owner together have at most its share of rows, and so have its rulesets. */
export function createPolicyRows(peers: KernelMap, ports: KernelMap, share: OwnersShare = noShares): PolicyRows {
  const owners = new Map<number, string>();
  /**
   * Peers with a row of their own, in the kernel or tried again because the map is full, by subject and direction; and how many
   * rows each owner has.
   */
  const placed = new Map<string, Set<number>>();
  const rowsOfOwner = new Map<string, number>();
  const rulesets = createRulesetRows(ports, share.ports);
  /** Fallbacks as they should be, by subject and direction. */
  const fallbacks = new Map<string, PolicyPeerRow>();
  const waiting = new Map<string, Waiting>();
  const closed = new Map<string, number>();
  const standIns = new Map<string, StandIn>();
  /** The stand-ins that name a class, on either side. */
  const standInsOf = new Map<number, Set<StandIn>>();
  /** By subject, direction and stand-in. */
  const taken = new Map<string, Taken>();
  /** Peers that are allowed what the fallback allows, and for how many reasons; and their rows as they should be. */
  const narrowed = new Map<string, number>();
  const kept = new Map<string, PolicyPeerRow>();

  /** Without the rows of its ruleset a peer row is not written at all. */
  function tryPeer(row: PolicyPeerRow): boolean {
    if (narrowed.has(policyPeerKey(row))) {
      kept.set(policyPeerKey(row), row);
      if (peers.get(peerKey(row)) !== undefined) return pointToNothing(row);
      forget(row);
      return true;
    }
    // What was refused for this peer before is not its policy any more.
    if (!rulesets.isWhole(row.ruleset) || isOverShare(row)) {
      forget(row);
      return false;
    }
    countPlaced(row, true);
    const value = datapathMaps.policy_peer.value.encode({ ruleset: row.ruleset });
    return peers.put(peerKey(row), value, policyPeerKey(row));
  }

  /** Nobody tries again to write the row; it counts only if it is there as it was before. */
  function forget(row: PolicyPeerRow): void {
    peers.forget(peerKey(row));
    if (peers.get(peerKey(row)) === undefined) countPlaced(row, false);
  }

  /** Whether a row would be one too many for its owner. Fallbacks never are: without one the subject is shut. */
  function isOverShare(row: Omit<PolicyPeerRow, 'ruleset'>): boolean {
    const owner = owners.get(row.subject);
    if (!owner || row.peer === 0 || placed.get(subjectKey(row))?.has(row.peer)) return false;
    return (rowsOfOwner.get(owner) ?? 0) >= share.peers;
  }

  function countPlaced(row: Omit<PolicyPeerRow, 'ruleset'>, there: boolean): void {
    const owner = owners.get(row.subject);
    if (!owner || row.peer === 0) return;
    const key = subjectKey(row);
    let of = placed.get(key);
    if (of === undefined) {
      of = new Set();
      placed.set(key, of);
    }
    if (of.has(row.peer) === there) return;
    if (there) of.add(row.peer);
    else of.delete(row.peer);
    if (of.size === 0) placed.delete(key);
    rowsOfOwner.set(owner, (rowsOfOwner.get(owner) ?? 0) + (there ? 1 : -1));
  }

  function subjectKey({ subject, direction }: { subject: number; direction: Direction }): string {
    return `${subject}/${direction}`;
  }

  /** How many peers of a subject wait for a ruleset that denies something, or have none and must not be judged by the fallback. */
  function countClosing(row: { subject: number; direction: Direction }, by: 1 | -1): void {
    const key = subjectKey(row);
    const count = (closed.get(key) ?? 0) + by;
    if (count > 0) closed.set(key, count);
    else closed.delete(key);
    const fallback = fallbacks.get(key);
    if (fallback !== undefined && (count === 0 || (count === 1 && by === 1))) putPeer(fallback);
  }

  function pointToNothing(row: PolicyPeerRow): boolean {
    const value = datapathMaps.policy_peer.value.encode({ ruleset: noRuleset });
    return peers.put(peerKey(row), value, policyPeerKey(row));
  }

  function writeFallback(row: PolicyPeerRow): boolean {
    return closed.has(subjectKey(row)) ? pointToNothing(row) : tryPeer(row);
  }

  /** The ruleset that a peer should have by a row of its own. */
  function wanted(row: Omit<PolicyPeerRow, 'ruleset'>): number | undefined {
    if (row.peer === 0) return undefined;
    const key = policyPeerKey(row);
    return (waiting.get(key)?.row ?? kept.get(key))?.ruleset ?? rulesetInKernel(row);
  }

  /** What a stand-in must take from a subject. Of rulesets of an earlier run nothing is known: all of it. */
  function takenBy({ of, as }: StandIn, subject: number, direction: Direction): Taken {
    const due = wanted({ subject, direction, peer: of });
    const has = wanted({ subject, direction, peer: as });
    if (due === has) return nothingTaken;
    const than = due === undefined ? saysNothing : (rulesets.meaning(due) ?? unknown);
    const narrows = has !== undefined && !rulesets.isNarrower(has, than);
    const closes = than.denies || (narrows && (rulesets.meaning(has) ?? unknown).denies);
    return { closes, narrows };
  }

  function review(standIn: StandIn, { subject, direction }: { subject: number; direction: Direction }): boolean {
    const key = `${subjectKey({ subject, direction })} ${standInKey(standIn)}`;
    const before = taken.get(key) ?? nothingTaken;
    const lives = standIns.has(standInKey(standIn)) && fallbacks.has(subjectKey({ subject, direction }));
    const now = lives ? takenBy(standIn, subject, direction) : nothingTaken;
    if (before.closes === now.closes && before.narrows === now.narrows) return false;
    if (now.closes || now.narrows) taken.set(key, now);
    else taken.delete(key);
    // The fallback closes before somebody is left to it, and opens when nobody is any more.
    if (now.closes && !before.closes) countClosing({ subject, direction }, 1);
    if (now.narrows !== before.narrows) countNarrowing({ subject, direction, peer: standIn.as }, now.narrows ? 1 : -1);
    if (before.closes && !now.closes) countClosing({ subject, direction }, -1);
    return true;
  }

  function countNarrowing(row: Omit<PolicyPeerRow, 'ruleset'>, by: 1 | -1): void {
    const key = policyPeerKey(row);
    const count = (narrowed.get(key) ?? 0) + by;
    const ruleset = wanted(row);
    if (count > 0) narrowed.set(key, count);
    else {
      narrowed.delete(key);
      kept.delete(key);
    }
    if (ruleset !== undefined && (count === 0 || (count === 1 && by === 1))) putPeer({ ...row, ruleset });
  }

  /** A peer's row is another one now, or the fallback is: what stand-ins take from the subject may be, too. */
  function reviewPeer({ subject, direction, peer }: Omit<PolicyPeerRow, 'ruleset'>): void {
    if (standIns.size === 0) return;
    const concerned = peer === 0 ? standIns.values() : (standInsOf.get(peer) ?? []);
    for (const each of [...concerned]) review(each, { subject, direction });
  }

  function reviewAll(standIn: StandIn): boolean {
    let changed = false;
    for (const row of [...fallbacks.values()]) if (review(standIn, row)) changed = true;
    return changed;
  }

  /** Takes from a peer that waits what its policy may no longer allow; answers with the ruleset that it keeps. */
  function narrow(row: PolicyPeerRow): number | undefined {
    const old = rulesetInKernel(row);
    if (old === undefined || old === noRuleset) return undefined;
    const now = rulesets.meaning(row.ruleset) ?? saysNothing;
    return rulesets.isNarrower(old, now) || !pointToNothing(row) ? old : undefined;
  }

  function stopWaiting(found: Waiting | undefined): void {
    if (found === undefined) return;
    if (found.closes) countClosing(found.row, -1);
    if (found.old !== undefined) rulesets.hold(found.old, -1);
  }

  function rulesetInKernel(row: Omit<PolicyPeerRow, 'ruleset'>): number | undefined {
    const value = peers.get(peerKey(row));
    return value && datapathMaps.policy_peer.value.decode(value).ruleset;
  }

  /** Answers whether the kernel has the row. What it waited with goes last, so that nothing is open in between. */
  function putPeer(row: PolicyPeerRow): boolean {
    const key = policyPeerKey(row);
    const before = waiting.get(key);
    if (row.peer === 0) fallbacks.set(subjectKey(row), row);
    const fits = row.peer === 0 ? writeFallback(row) : tryPeer(row);
    if (fits) waiting.delete(key);
    else {
      const closes = row.peer !== 0 && (rulesets.meaning(row.ruleset) ?? saysNothing).denies;
      if (closes) countClosing(row, 1);
      const old = narrow(row);
      waiting.set(key, { row, old, closes });
      if (old !== undefined) rulesets.hold(old, 1);
    }
    stopWaiting(before);
    return fits;
  }

  return {
    own: (subject, owner) => void owners.set(subject, owner),
    ownRuleset: rulesets.own,
    putPort: rulesets.put,
    removePort: rulesets.remove,
    putPeer(row) {
      putPeer(row);
      reviewPeer(row);
    },
    removePeer(row) {
      const key = policyPeerKey(row);
      if (row.peer === 0) fallbacks.delete(subjectKey(row));
      kept.delete(key);
      peers.remove(peerKey(row), key);
      countPlaced(row, false);
      const before = waiting.get(key);
      waiting.delete(key);
      stopWaiting(before);
      reviewPeer(row);
    },
    standIn(all, again = false) {
      const now = new Map(all.map((each) => [standInKey(each), each]));
      let changed = false;
      for (const [key, each] of now) {
        if (standIns.has(key) && !again) continue;
        if (!standIns.has(key)) {
          standIns.set(key, each);
          for (const number of [each.of, each.as]) addTo(standInsOf, number, each);
        }
        if (reviewAll(standIns.get(key)!)) changed = true;
      }
      for (const [key, each] of [...standIns]) {
        if (now.has(key)) continue;
        standIns.delete(key);
        for (const number of [each.of, each.as]) removeFrom(standInsOf, number, each);
        if (reviewAll(each)) changed = true;
      }
      return changed;
    },
    retry() {
      if (waiting.size === 0) return false;
      rulesets.retry();
      let fits = false;
      for (const { row } of [...waiting.values()]) if (!isOverShare(row) && putPeer(row)) fits = true;
      return fits;
    },
    status() {
      const over = new Map<string, OverShare>();
      const isOver = (owner: string, map: OverShare['map'], rows: number) =>
        over.set(`${map} ${owner}`, { owner, map, share: rows });
      for (const { row } of waiting.values()) {
        if (isOverShare(row)) isOver(owners.get(row.subject)!, 'policy_peer', share.peers);
        const owner = rulesets.overShare(row.ruleset);
        if (owner !== undefined) isOver(owner, 'policy_ports', share.ports);
      }
      const shut = [...waiting.values()].filter(({ row, old }) => row.peer === 0 && old === undefined);
      return {
        waiting: waiting.size,
        closed: [...new Set([...closed.keys(), ...shut.map(({ row }) => subjectKey(row))])],
        over: [...over.values()],
      };
    },
  };
}

function peerKey(row: Omit<PolicyPeerRow, 'ruleset'>): Uint8Array {
  const direction = row.direction === 'ingress' ? KernelDirection.DIRECTION_INGRESS : KernelDirection.DIRECTION_EGRESS;
  return datapathMaps.policy_peer.key.encode({ subject: row.subject, peer: row.peer, direction });
}

const saysNothing: RulesetMeaning = { denies: false, allows: new Set() };
/** What must be thought of a ruleset of which nothing is known: that it denies whatever another allows. */
const unknown: RulesetMeaning = { denies: true, allows: new Set() };

function standInKey({ of, as }: StandIn): string {
  return `${of} ${as}`;
}

function addTo<V>(map: Map<number, Set<V>>, key: number, value: V): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([value]));
  else set.add(value);
}

function removeFrom<V>(map: Map<number, Set<V>>, key: number, value: V): void {
  const set = map.get(key);
  if (set?.delete(value) && set.size === 0) map.delete(key);
}
