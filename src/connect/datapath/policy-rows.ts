// The two policy maps, and what becomes of rows for which there is no room: never an opening. A ruleset that did not fit
// whole is pointed to by nobody; a peer whose ruleset denies something and that could not be given it closes its subject's
// fallback, because there the fallback would let through what the ruleset does not. What was there before stays.
import {
  type Direction,
  type PolicyPeerRow,
  type PolicyPortRow,
  policyPeerKey,
  policyPortKey,
} from '../../core/rows.ts';
import { datapathMaps, Direction as KernelDirection } from '../../kernel/datapath.gen.ts';
import type { KernelMap } from './kernel-map.ts';

/** The rows of policy in the kernel. */
export interface PolicyRows {
  putPort(row: PolicyPortRow): void;
  removePort(row: PolicyPortRow): void;
  putPeer(row: PolicyPeerRow): void;
  removePeer(row: Omit<PolicyPeerRow, 'ruleset'>): void;
  /** Tries again what did not fit; call it after the maps themselves have tried. True when something fits now. */
  retry(): boolean;
  /** Peers that wait for room, and the directions of subjects that are closed for them. */
  status(): { readonly waiting: number; readonly closed: readonly string[] };
}

/** A ruleset without entries: as the fallback it denies everything. */
const noRuleset = 0;

interface RulesetRows {
  /** Rows that did not fit. */
  readonly missing: Set<string>;
  denies: boolean;
  /** Peers that should point elsewhere and still point here: it stays until they do. */
  holders: number;
  /** To be removed once nobody holds it. */
  readonly leaving: PolicyPortRow[];
}

/** Takes the maps over. */
export function createPolicyRows(peers: KernelMap, ports: KernelMap): PolicyRows {
  const rulesets = new Map<number, RulesetRows>();
  /** Fallbacks as they should be, by subject and direction. */
  const fallbacks = new Map<string, PolicyPeerRow>();
  /** With the ruleset that the kernel has for the peer meanwhile. */
  const waiting = new Map<string, { readonly row: PolicyPeerRow; readonly old: number | undefined }>();
  const closed = new Map<string, number>();

  function rulesetOf(number: number): RulesetRows {
    let rows = rulesets.get(number);
    if (rows === undefined) {
      rows = { missing: new Set(), denies: false, holders: 0, leaving: [] };
      rulesets.set(number, rows);
    }
    return rows;
  }

  /** Without the rows of its ruleset a peer row is not written at all. */
  function tryPeer(row: PolicyPeerRow): boolean {
    if (rulesetOf(row.ruleset).missing.size > 0) return false;
    return peers.put(peerKey(row), datapathMaps.policy_peer.value.encode({ ruleset: row.ruleset }), policyPeerKey(row));
  }

  function subjectKey({ subject, direction }: { subject: number; direction: Direction }): string {
    return `${subject}/${direction}`;
  }

  /** How many peers of a subject wait for a ruleset that denies something. */
  function countClosing(row: PolicyPeerRow, by: 1 | -1): void {
    if (row.peer === 0 || !rulesetOf(row.ruleset).denies) return;
    const key = subjectKey(row);
    const count = (closed.get(key) ?? 0) + by;
    if (count > 0) closed.set(key, count);
    else closed.delete(key);
    const fallback = fallbacks.get(key);
    if (fallback !== undefined && (count === 0 || (count === 1 && by === 1))) writeFallback(fallback);
  }

  function writeFallback(row: PolicyPeerRow): boolean {
    if (!closed.has(subjectKey(row))) return tryPeer(row);
    const value = datapathMaps.policy_peer.value.encode({ ruleset: noRuleset });
    return peers.put(peerKey(row), value, policyPeerKey(row));
  }

  function stopWaiting(key: string): void {
    const found = waiting.get(key);
    if (found === undefined) return;
    waiting.delete(key);
    countClosing(found.row, -1);
    if (found.old !== undefined) hold(found.old, -1);
  }

  function hold(ruleset: number, by: 1 | -1): void {
    const rows = rulesetOf(ruleset);
    rows.holders += by;
    if (rows.holders === 0) for (const row of rows.leaving.splice(0)) remove(row);
  }

  function remove(row: PolicyPortRow): void {
    ports.remove(portKey(row), policyPortKey(row));
    rulesets.delete(row.ruleset);
  }

  function rulesetInKernel(row: PolicyPeerRow): number | undefined {
    const value = peers.get(peerKey(row));
    return value && datapathMaps.policy_peer.value.decode(value).ruleset;
  }

  function putPeer(row: PolicyPeerRow): void {
    const key = policyPeerKey(row);
    const before = waiting.get(key);
    // What it held until now must not go before the row has been written.
    if (before?.old !== undefined) hold(before.old, 1);
    stopWaiting(key);
    if (row.peer === 0) fallbacks.set(subjectKey(row), row);
    if (!(row.peer === 0 ? writeFallback(row) : tryPeer(row))) {
      const old = rulesetInKernel(row);
      waiting.set(key, { row, old });
      if (old !== undefined) hold(old, 1);
      countClosing(row, 1);
    }
    if (before?.old !== undefined) hold(before.old, -1);
  }

  return {
    putPort(row) {
      const rows = rulesetOf(row.ruleset);
      if (!row.allow) rows.denies = true;
      const key = policyPortKey(row);
      if (ports.put(portKey(row), portValue(row), key)) rows.missing.delete(key);
      else rows.missing.add(key);
    },
    removePort(row) {
      const rows = rulesetOf(row.ruleset);
      if (rows.holders > 0) rows.leaving.push(row);
      else remove(row);
    },
    putPeer,
    removePeer(row) {
      const key = policyPeerKey(row);
      stopWaiting(key);
      if (row.peer === 0) fallbacks.delete(subjectKey(row));
      peers.remove(peerKey(row), key);
    },
    retry() {
      if (waiting.size === 0) return false;
      const failing = new Set(ports.status().failing.map((each) => each.row));
      for (const { missing } of rulesets.values())
        for (const key of missing) if (!failing.has(key)) missing.delete(key);
      const before = waiting.size;
      for (const { row } of [...waiting.values()]) putPeer(row);
      return waiting.size < before;
    },
    status: () => ({ waiting: waiting.size, closed: [...closed.keys()] }),
  };
}

function peerKey(row: Omit<PolicyPeerRow, 'ruleset'>): Uint8Array {
  const direction = row.direction === 'ingress' ? KernelDirection.DIRECTION_INGRESS : KernelDirection.DIRECTION_EGRESS;
  return datapathMaps.policy_peer.key.encode({ subject: row.subject, peer: row.peer, direction });
}

function portKey(row: PolicyPortRow): Uint8Array {
  return datapathMaps.policy_ports.key.encode({
    prefixlen: 32 + row.prefixBits,
    ruleset: row.ruleset,
    protocol: row.protocol,
    portHi: row.port >> 8,
    portLo: row.port & 255,
  });
}

function portValue(row: PolicyPortRow): Uint8Array {
  return datapathMaps.policy_ports.value.encode({
    cookie: row.cookie,
    proxyPort: row.proxyPort,
    allow: row.allow ? 1 : 0,
    stagedAllow: row.stagedAllow ? 1 : 0,
  });
}
