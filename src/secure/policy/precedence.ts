// Who wins where several rules match: the one place that knows. docs/policy.md draws it.
//
//   admin      the first rule that matches, by priority: allow and deny are final, pass leaves it to the next tier
//   normal     any deny, else any allow, else the default deny of whoever isolates the subject
//   essential  asked before that default deny: what a node cannot do without (policies for nodes only)
//   baseline   asked only where nobody isolates: the first rule that matches; pass and nothing allow
import type { PolicyAction, PolicyTier } from '../../core/rows.ts';

/** What precedence asks of a rule. */
export interface Ranked {
  readonly tier: PolicyTier;
  readonly action: PolicyAction;
  /** Orders the rules of the tiers admin and baseline; see `rankOf`. Equal ranks do not occur there. */
  readonly rank: string;
}

/** What came of it. `none`: no rule spoke and nobody isolates, so it is allowed. */
export type Outcome<R> =
  | { readonly verdict: 'allow' | 'deny'; readonly rules: readonly R[] }
  | { readonly verdict: 'default-deny' | 'none' };

/** A text that sorts as the rules of one tier and direction do: by priority, then by the policy's name, then by place. */
export function rankOf(priority: number, key: string, index: number): string {
  return `${String(priority).padStart(6, '0')} ${key} ${String(index).padStart(6, '0')}`;
}

/** Decides between the rules that match a packet. */
export function decide<R extends Ranked>(matching: readonly R[], isolated: boolean): Outcome<R> {
  const admin = firstOf(matching, 'admin');
  if (admin !== undefined && admin.action !== 'pass') return { verdict: admin.action, rules: [admin] };
  const denying = matching.filter((rule) => rule.tier === 'normal' && rule.action === 'deny');
  if (denying.length > 0) return { verdict: 'deny', rules: denying };
  const allowing = matching.filter((rule) => rule.tier === 'normal');
  if (allowing.length > 0) return { verdict: 'allow', rules: allowing };
  if (isolated) {
    const essential = matching.filter((rule) => rule.tier === 'essential');
    return essential.length > 0 ? { verdict: 'allow', rules: essential } : { verdict: 'default-deny' };
  }
  const baseline = firstOf(matching, 'baseline');
  if (baseline !== undefined && baseline.action !== 'pass') return { verdict: baseline.action, rules: [baseline] };
  return { verdict: 'none' };
}

function firstOf<R extends Ranked>(matching: readonly R[], tier: PolicyTier): R | undefined {
  let first: R | undefined;
  for (const rule of matching) {
    if (rule.tier === tier && (first === undefined || rule.rank < first.rank)) first = rule;
  }
  return first;
}
