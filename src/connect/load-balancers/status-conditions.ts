// Conditions of pools and services, as they are to be written.
import type { PoolUse } from './assign-addresses.ts';
import type { PoolRow } from './parse-pool.ts';
import type { Condition } from './parse-request.ts';

/** What a condition says. */
type Said = Pick<Condition, 'status' | 'reason' | 'message'> & { readonly observedGeneration?: number };

/** The conditions with this one as it is now; the time of its last change stays while its status does. Undefined: without it. */
export function withCondition(
  conditions: readonly Condition[],
  type: string,
  said: Said | undefined,
  nowMs: number = Date.now(),
): Condition[] {
  const at = conditions.findIndex((each) => each.type === type);
  const before = conditions[at];
  if (said === undefined) return conditions.filter((each) => each.type !== type);
  const lastTransitionTime =
    before?.status === said.status ? before.lastTransitionTime : new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z');
  const next: Condition = { ...said, type, lastTransitionTime };
  return at < 0 ? [...conditions, next] : conditions.with(at, next);
}

/** What a pool's status says: whether it is in another's way, how many addresses it has, and what was not understood. */
export function poolConditions(
  pool: PoolRow,
  use: PoolUse,
  before: readonly Condition[],
  nowMs: number = Date.now(),
): Condition[] {
  const observedGeneration = pool.generation;
  const count = (number: bigint): Said => ({
    status: 'Unknown',
    reason: 'noreason',
    message: String(number),
    observedGeneration,
  });
  const said: [string, Said | undefined][] = [
    [
      'cilium.io/PoolConflict',
      use.conflict === undefined
        ? { status: 'False', reason: 'resolved', message: '', observedGeneration }
        : { status: 'True', reason: 'cidr_overlap', message: use.conflict, observedGeneration },
    ],
    ['cilium.io/IPsTotal', count(use.total)],
    ['cilium.io/IPsAvailable', count(use.total - use.used)],
    ['cilium.io/IPsUsed', count(use.used)],
    [
      'weir.dev/SpecUnderstood',
      pool.problems.length === 0
        ? undefined
        : { status: 'False', reason: 'invalid', message: pool.problems.join('; '), observedGeneration },
    ],
  ];
  return said.reduce((list, [type, each]) => withCondition(list, type, each, nowMs), [...before]);
}
