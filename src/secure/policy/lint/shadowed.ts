// Rules that never decide, because another one does first for everything that they match.
import type { Direction, PolicyRow, PolicyRule } from '../../../core/rows.ts';
import { originOf } from '../compiled-rule.ts';
import { ruleText } from '../explain.ts';
import { rankOf } from '../precedence.ts';
import { ruleCovers, subjectCovers } from './covers.ts';

/** A rule and the one that decides in its place. */
export interface Shadowed {
  readonly policy: PolicyRow;
  readonly direction: Direction;
  readonly rule: PolicyRule;
  readonly by: string;
}

interface Placed {
  readonly policy: PolicyRow;
  readonly rule: PolicyRule;
}

/** All shadowed rules. A staged policy shadows nothing. */
export function shadowedRules(policies: readonly PolicyRow[]): Shadowed[] {
  return (['ingress', 'egress'] as const).flatMap((direction) => {
    // Only these decide before others: there are few, however many policies there are.
    const deciding = policies
      .filter((policy) => !policy.staged)
      .flatMap((policy) =>
        policy[direction]
          .filter(({ action }) => action === 'deny' || (policy.tier !== 'normal' && action === 'allow'))
          .map((rule): Placed => ({ policy, rule })),
      );
    const byNamespace = Map.groupBy(deciding, ({ policy }) => policy.namespace);
    return policies.flatMap((policy) =>
      policy[direction].flatMap((rule): Shadowed[] => {
        const own = policy.namespace === '' ? [] : (byNamespace.get(policy.namespace) ?? []);
        const candidates = [...own, ...(byNamespace.get('') ?? [])];
        const found = candidates.find((each) => decidesBefore(each, { policy, rule }));
        if (found === undefined) return [];
        return [{ policy, direction, rule, by: ruleText(originOf(found.policy, direction, found.rule)) }];
      }),
    );
  });
}

function decidesBefore(first: Placed, second: Placed): boolean {
  if (first.rule === second.rule || !comesBefore(first, second)) return false;
  return subjectCovers(first.policy, second.policy) && ruleCovers(first.rule, second.rule);
}

const tiers = ['admin', 'normal', 'baseline'];

function comesBefore(first: Placed, second: Placed): boolean {
  const [a, b] = [first.policy, second.policy];
  if (a.tier !== b.tier) return tiers.indexOf(a.tier) < tiers.indexOf(b.tier);
  if (a.tier === 'normal') return first.rule.action === 'deny' && second.rule.action === 'allow';
  return rankOf(a.priority, a.key, first.rule.index) < rankOf(b.priority, b.key, second.rule.index);
}
