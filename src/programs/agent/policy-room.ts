// How full the maps of policy are, and what fills them: said before they are full, while something can be done about it.

import type { KernelMapStatus } from '../../connect/datapath/kernel-map.ts';
import { policyKey } from '../../core/rows.ts';
import type { PolicyCompiler } from '../../secure/policy/compile.ts';

/** From this share of its rows on a map is worth a warning. */
const nearlyFull = 0.8;
const shown = 3;

/** One line for each map of policy that is nearly full, with those who have most rows in it. */
export function policyRoom(
  maps: readonly KernelMapStatus[],
  compiler: PolicyCompiler,
  labelsOf: (identity: number) => readonly string[],
): string[] {
  return maps.flatMap((map) => {
    if (map.rows < map.capacity * nearlyFull) return [];
    const percent = Math.round((100 * map.rows) / map.capacity);
    const head = `map ${map.name} is ${percent} % full (${map.rows} of ${map.capacity} rows)`;
    const most =
      map.name === 'policy_ports'
        ? rowsOfPolicies(compiler)
        : map.name === 'policy_peer'
          ? rowsOfSubjects(compiler)
          : [];
    const names = most.map(([name, rows]) => `${typeof name === 'string' ? name : labelsOf(name).join(',')} ${rows}`);
    return [`${head}${names.length > 0 ? `; most of them: ${names.join('; ')}` : ''}`];
  });
}

/** Policies by the rows of ports that name them. */
function rowsOfPolicies(compiler: PolicyCompiler): [string, number][] {
  const counts = new Map<string, number>();
  for (const { cookie } of compiler.ports()) {
    const rules = compiler.cookie(cookie)?.rules ?? [];
    for (const key of new Set(rules.map((rule) => policyKey(rule.kind, rule.namespace, rule.name)))) add(counts, key);
  }
  return top(counts);
}

/** Identities of this node's endpoints by the peers that have a row. */
function rowsOfSubjects(compiler: PolicyCompiler): [number, number][] {
  const identities = new Map<number, number>();
  for (const row of compiler.classes()) identities.set(row.class, row.identity);
  const counts = new Map<number, number>();
  for (const { subject } of compiler.peers()) add(counts, identities.get(subject) ?? 0);
  return top(counts);
}

function add<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function top<K>(counts: ReadonlyMap<K, number>): [K, number][] {
  return [...counts].sort(([, a], [, b]) => b - a).slice(0, shown);
}
