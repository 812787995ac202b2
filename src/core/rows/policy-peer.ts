// First step of the compiled policy: who talks with whom decides which ruleset judges the port.
import type { Direction } from './policy.ts';

/** The ruleset that allows everything, with cookie 0. */
export const allowAllRuleset = 1;

/**
 * A missing peer, and a port that the peer's ruleset does not speak of, fall back to peer 0, "any". Every pod of the node
 * has such a row in both directions; a subject without one is not compiled yet, and closed.
 */
export interface PolicyPeerRow {
  readonly subject: number;
  readonly direction: Direction;
  readonly peer: number;
  readonly ruleset: number;
}

/** The primary key of a peer row. */
export function policyPeerKey(row: Pick<PolicyPeerRow, 'subject' | 'direction' | 'peer'>): string {
  return `${row.subject}/${row.direction}/${row.peer}`;
}
