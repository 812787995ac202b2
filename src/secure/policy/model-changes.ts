// A whole model as the first change of a compiler: for tests, benchmarks and dry runs.
import type { Key } from '../../core/table.ts';
import type { PolicyModel } from './evaluate.ts';
import type { Changes, PolicyChanges } from './policy-delta.ts';

/** The changes that lead from nothing, or from whatever there was, to this model. */
export function modelChanges(model: PolicyModel): Required<PolicyChanges> {
  const all = <R>(rows: readonly R[], keyOf: (row: R) => Key): Changes<R> => ({
    resync: true,
    changes: rows.map((after) => ({ key: keyOf(after), after, revision: 1 })),
  });
  return {
    identities: all(model.identities, (row) => row.id),
    namespaces: all(model.namespaces, (row) => row.name),
    addresses: all(model.addresses, (row) => row.address),
    prefixes: all(model.prefixes, (row) => row.cidr),
    policies: all(model.policies, (row) => row.key),
  };
}
