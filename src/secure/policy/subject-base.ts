// What holds for a subject whatever the peer: whether it is isolated, by whom, and its rules for any peer.
import type { Direction } from '../../core/rows.ts';
import type { CompiledRule } from './compiled-rule.ts';
import type { Cookies } from './cookies.ts';
import { concerns, type Subject } from './local-policies.ts';
import type { Isolation } from './rulesets.ts';

/** What all peers of a subject share. */
export interface SubjectBase extends Isolation {
  /** No policy isolates it or has a rule for it, not even a staged one; what is essential is open then anyway. */
  readonly open: boolean;
  /** Rules for any peer. */
  readonly wildcards: readonly CompiledRule[];
}

/** The base of a pod whose labels are unknown: closed, in the name of no policy. */
export function closedBase(cookies: Cookies): SubjectBase {
  const denyCookie = cookies.number({ verdict: 'default-deny', rules: [] });
  return { enforced: true, staged: true, anyStaged: false, denyCookie, open: false, wildcards: [] };
}

/** The base of a subject as its policies stand now. */
export function baseOf(subject: Subject, direction: Direction, cookies: Cookies): SubjectBase {
  if (subject.closed) return closedBase(cookies);
  const policies = [...subject.policies].filter((policy) => concerns(policy.row, direction));
  const isolating = policies.filter((policy) => policy.row.isolates[direction]);
  const enforced = isolating.filter((policy) => !policy.row.staged).map((policy) => policy.isolation[direction]);
  return {
    enforced: enforced.length > 0,
    staged: isolating.length > 0,
    anyStaged: policies.some((policy) => policy.row.staged),
    denyCookie: enforced.length > 0 ? cookies.number({ verdict: 'default-deny', rules: enforced }) : 0,
    open: policies.every((policy) => policy.row.tier === 'essential'),
    wildcards: policies.flatMap((policy) => policy.rules[direction].filter((rule) => rule.peers === undefined)),
  };
}

/** Whether the step from one base to another concerns every peer, and not the fallback alone. */
export function reachesPeers(before: SubjectBase | undefined, after: SubjectBase): boolean {
  if (before === undefined || before.enforced !== after.enforced || before.staged !== after.staged) return true;
  if (before.anyStaged !== after.anyStaged) return true;
  if (before.open !== after.open || before.wildcards.length !== after.wildcards.length) return true;
  const known = new Set(before.wildcards);
  return !after.wildcards.every((rule) => known.has(rule));
}
