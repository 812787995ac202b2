// Manifests of policies, read and resolved at once: for tools that work on files, tests and benchmarks.
import type { PolicyRow } from '../../core/rows.ts';
import { parsePolicy } from './parse-policy.ts';
import { emptyContext, type PolicyContext, resolvePolicy } from './resolve-policy.ts';

/** The rows of some manifests. Throws for one that is no policy, or has a problem. */
export function readPolicies(manifests: readonly unknown[], context: PolicyContext = emptyContext): PolicyRow[] {
  return manifests.flatMap((manifest) => {
    const parsed = parsePolicy(manifest);
    if (parsed === undefined) throw new Error('not a policy');
    if (parsed.row === undefined || parsed.problems.length > 0) throw new Error(parsed.problems.join('; '));
    return resolvePolicy(parsed.row, context);
  });
}
