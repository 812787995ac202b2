// Tells the cluster which policies this node enforces: in one object of its own, which the operator reads for the status of
// policies. Written when the kernel is in step and something has changed. Every node has something to tell when a policy
// changes, so that the more nodes there are, the longer each lets pass: the API server has a bounded number of writes.
import { errorText } from '../../core/errors.ts';
import type { PolicyObjectRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type WeirNodeReport, weirResources } from '../../kube/weir/schemas.ts';
import { createPolicyDigest } from '../../secure/policy/policy-digest.ts';
import type { Log } from '../log.ts';

const lookIntervalMs = 1_000;
/** How many reports all nodes together write in a second, at most on average. */
const reportsPerSecond = 100;
/** A report that fails is written again after this long, in case nothing changes meanwhile. */
const retryMs = 10_000;

/** Why a node does not enforce all of its policies. */
export interface PolicyProblem {
  readonly reason: 'NoRoom' | 'Failed';
  readonly message: string;
}

const maxMessage = 1_024;

/** Starts telling; the answer ends it. */
export function reportPolicies(options: {
  readonly client: KubeClient;
  readonly node: string;
  readonly nodes: { readonly size: number };
  readonly objects: ReadTable<PolicyObjectRow>;
  /** Whether all that tables hold is in the kernel. */
  readonly inStep: () => boolean;
  /** What keeps this node from enforcing its policies. Told also while the kernel is not in step. */
  readonly problem: () => PolicyProblem | undefined;
  readonly log: Log;
}): () => void {
  const { client, node, nodes, objects, log } = options;
  let digest = createPolicyDigest();
  let seen = 0;
  let everInStep = false;
  let told = '';
  let writing = false;
  let waitUntilMs = 0;
  /** When what is new is told; undefined while nothing is. */
  let dueMs: number | undefined;
  let failure = '';

  async function look(): Promise<void> {
    if (writing) return;
    if (options.inStep()) {
      everInStep = true;
      const set = objects.changesSince(seen);
      if (set.resync) digest = createPolicyDigest();
      for (const { key, after } of set.changes) digest.set(String(key), after);
      seen = set.revision;
    }
    if (!everInStep) return;
    const problem = options.problem();
    const now = `${digest.text} ${problem?.message ?? ''}`;
    if (now === told) {
      dueMs = undefined;
      return;
    }
    // Not all nodes at once; what changes meanwhile goes with the same report.
    dueMs ??= Math.max(waitUntilMs, Date.now() + Math.random() * spreadMs(nodes.size));
    if (Date.now() < dueMs) return;
    writing = true;
    try {
      await client.apply<WeirNodeReport>(weirResources.nodeReports, {
        apiVersion: 'weir.dev/v1alpha1',
        kind: 'WeirNodeReport',
        metadata: { name: node },
        policies: {
          digest: digest.text,
          revision: seen,
          ...(problem !== undefined && { problem: problem.message.slice(0, maxMessage), reason: problem.reason }),
        },
      });
      told = now;
      failure = '';
      dueMs = undefined;
      waitUntilMs = Date.now() + spreadMs(nodes.size);
    } catch (error) {
      dueMs = Date.now() + retryMs;
      // Once: the status of policies says less than there is until it succeeds.
      if (errorText(error) !== failure)
        log.warn('could not tell which policies are enforced', { error: errorText(error) });
      failure = errorText(error);
    } finally {
      writing = false;
    }
  }

  const timer = setInterval(() => void look(), lookIntervalMs * (1 + Math.random()));
  return () => clearInterval(timer);
}

/** The time in which all nodes may report once: nothing that a person sees up to a hundred nodes. */
function spreadMs(nodes: number): number {
  return nodes <= reportsPerSecond ? 0 : (nodes / reportsPerSecond) * 1_000;
}
