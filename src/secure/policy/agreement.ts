// Holds compiled rows against the evaluator: what tests of the compiler mean by "right".
import assert from 'node:assert/strict';
import { type RuleOrigin, rulePlace } from '../../core/rows.ts';
import type { PolicyCompiler } from './compile.ts';
import { type CompiledMaps, lookupConnection } from './compiled-lookup.ts';
import { type Connection, evaluate, type PolicyModel, type Verdict } from './evaluate.ts';

/** The evaluator and the maps must agree at every end that is a pod of this node: verdict, staged verdict, reasons. */
export function assertAgrees(
  model: PolicyModel,
  compiler: PolicyCompiler,
  maps: CompiledMaps,
  connections: Connection[],
): void {
  const here = model.addresses.filter((row) => row.endpointId > 0 || row.kind === 'host');
  const local = new Set(here.map((row) => row.address));
  for (const connection of connections) {
    const wanted = evaluate(model, connection);
    const found = lookupConnection(maps, connection);
    for (const [direction, end] of [
      ['egress', connection.source] as const,
      ['ingress', connection.destination] as const,
    ]) {
      if (!local.has(end)) continue;
      const cookie = compiler.cookie(found[direction].cookie);
      const named = (cookie?.rules ?? []).map(nameOf).sort();
      assert.deepEqual(
        { allowed: found[direction].allowed, staged: found[direction].stagedAllowed, named, why: cookie?.verdict },
        { allowed: wanted[direction].allowed, staged: wanted[direction].stagedAllowed, ...reasons(wanted[direction]) },
        `${direction} of ${JSON.stringify(connection)}`,
      );
    }
  }
}

function reasons(verdict: Verdict): { named: string[]; why: string | undefined } {
  const { allowed, decidedBy, isolatedBy } = verdict;
  if (decidedBy.length > 0) return { named: decidedBy.map(nameOf).sort(), why: allowed ? 'allow' : 'deny' };
  return allowed ? { named: [], why: undefined } : { named: isolatedBy.map(nameOf).sort(), why: 'default-deny' };
}

function nameOf(rule: RuleOrigin): string {
  return `${rule.kind}/${rule.namespace}/${rule.name}/${rulePlace(rule)}`;
}
