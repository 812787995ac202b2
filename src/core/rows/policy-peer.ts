// First step of the compiled policy: who talks with whom decides which ruleset judges the port.
import type { Direction } from './network-policy.ts';

/** The ruleset that allows everything, with cookie 0. */
export const allowAllRuleset = 1;

/** A missing peer falls back to peer 0, "any". A missing subject is judged by {@link allowAllRuleset}. */
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
