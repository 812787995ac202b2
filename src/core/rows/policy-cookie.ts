// What the number in a verdict means: the rules that allowed or denied, or the policies that isolate.
import type { Direction, RuleList } from './policy.ts';

/** A rule of a policy; `ruleIndex` counts from 0 in its list, -1 stands for the policy's isolation. */
export interface RuleOrigin {
  readonly kind: string;
  /** Empty for policies of the whole cluster. */
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  readonly direction: Direction;
  readonly ruleIndex: number;
  /** The list that `ruleIndex` counts in, where it is not the direction's own. */
  readonly list?: RuleList;
  /** Which of the policy's specs, where there are several. */
  readonly spec?: number;
  /** What the policy wants flows to carry. */
  readonly log?: string;
}

/** Cookie 0 is never a row: no policy spoke. A cookie's content never changes, and its number rests before reuse. */
export interface CookieRow {
  readonly cookie: number;
  readonly verdict: 'allow' | 'deny' | 'default-deny';
  readonly rules: readonly RuleOrigin[];
}

/** Where a rule stands, such as `ingress[0]` or `specs[1].egressDeny[2]`; undefined for isolation. */
export function rulePlace({ direction, ruleIndex, list, spec }: RuleOrigin): string | undefined {
  if (ruleIndex < 0) return undefined;
  return `${spec === undefined ? '' : `specs[${spec}].`}${list ?? direction}[${ruleIndex}]`;
}

/** `namespace/name`, or the name alone for policies of the whole cluster. */
export function policyName({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return namespace === '' ? name : `${namespace}/${name}`;
}
