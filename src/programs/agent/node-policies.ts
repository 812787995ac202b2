// Whether any policy is about this node itself: while none is, a firewall that only audits has nothing to look at.
import type { PolicyRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';

/**
 * Follows the policies that select this node. What Weir itself holds open is none of them. Before policies have been read there
 * may be some: what an agent before this one looked at is looked at.
 */
export function followNodePolicies(
  policies: ReadTable<PolicyRow>,
  onChange: () => void,
): { readonly any: boolean; stop(): void } {
  const keys = new Set<string>();
  const take = (key: string, row: PolicyRow | undefined): void => {
    if (row?.subject.kind === 'node' && row.tier !== 'essential') keys.add(key);
    else keys.delete(key);
  };
  for (const row of policies.rows()) take(row.key, row);
  const now = (): boolean => keys.size > 0 || !policies.initialized;
  let any = now();
  const stop = policies.subscribe(({ changes }) => {
    for (const { key, after } of changes) take(String(key), after);
    if (any === now()) return;
    any = now();
    onChange();
  });
  return {
    get any() {
      return any;
    },
    stop,
  };
}
