// What the number in a verdict means: the rules that allowed, or the policies that isolate.
import type { Direction } from './network-policy.ts';

/** A rule of a policy; `ruleIndex` counts from 0 in its direction, -1 stands for the policy's isolation. */
export interface RuleOrigin {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  readonly direction: Direction;
  readonly ruleIndex: number;
}

/** Cookie 0 is never a row: no policy spoke. A cookie's content never changes, and its number rests before reuse. */
export interface CookieRow {
  readonly cookie: number;
  readonly verdict: 'allow' | 'deny' | 'default-deny';
  readonly rules: readonly RuleOrigin[];
}
