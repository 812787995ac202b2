// Where the rules of a policy stand in its manifest.
import type { PolicyRow, PolicyRule } from '../../../core/rows.ts';
import type { OfflinePolicy } from '../manifests/offline-model.ts';

/** The JSON path of one of a policy's specs: `spec`, or `specs[1]`. */
export function specPath({ manifest }: OfflinePolicy, row: PolicyRow): string {
  const hasSpec = manifest.value.spec !== undefined && manifest.value.spec !== null;
  const number = (row.spec ?? 0) - (hasSpec ? 1 : 0);
  return number < 0 ? 'spec' : `specs[${number}]`;
}

/** The JSON path of a rule. */
export function rulePath(policy: OfflinePolicy, row: PolicyRow, rule: PolicyRule): string {
  return `${specPath(policy, row)}.${rule.list}[${rule.index}]`;
}
