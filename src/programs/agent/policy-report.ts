// Tells the cluster which policies this node enforces: in one object of its own, which the operator reads for the status of
// policies. Written when the kernel is in step and something has changed, and not more often than every second or two.
import { errorText } from '../../core/errors.ts';
import type { PolicyObjectRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type WeirNodeReport, weirResources } from '../../kube/weir/schemas.ts';
import { createPolicyDigest } from '../../secure/policy/policy-digest.ts';
import type { Log } from '../log.ts';

const reportIntervalMs = 1_000;
/** A report that fails is written again after this long, in case nothing changes meanwhile. */
const retryMs = 10_000;

/** Starts telling; the answer ends it. */
export function reportPolicies(options: {
  readonly client: KubeClient;
  readonly node: string;
  readonly objects: ReadTable<PolicyObjectRow>;
  /** Whether all that tables hold is in the kernel. */
  readonly inStep: () => boolean;
  /** What keeps this node from enforcing its policies. */
  readonly problem: () => string | undefined;
  readonly log: Log;
}): () => void {
  const { client, node, objects, log } = options;
  let digest = createPolicyDigest();
  let seen = 0;
  let told = '';
  let writing = false;
  let waitUntilMs = 0;

  async function look(): Promise<void> {
    if (writing || !options.inStep() || Date.now() < waitUntilMs) return;
    const set = objects.changesSince(seen);
    if (set.resync) digest = createPolicyDigest();
    for (const { key, after } of set.changes) digest.set(String(key), after);
    seen = set.revision;
    const problem = options.problem();
    const now = `${digest.text} ${problem ?? ''}`;
    if (now === told) return;
    writing = true;
    try {
      await client.apply<WeirNodeReport>(weirResources.nodeReports, {
        apiVersion: 'weir.dev/v1alpha1',
        kind: 'WeirNodeReport',
        metadata: { name: node },
        policies: { digest: digest.text, revision: seen, ...(problem !== undefined && { problem }) },
      });
      told = now;
    } catch (error) {
      waitUntilMs = Date.now() + retryMs;
      log.debug('could not tell which policies are enforced', { error: errorText(error) });
    } finally {
      writing = false;
    }
  }

  const timer = setInterval(() => void look(), reportIntervalMs * (1 + Math.random()));
  return () => clearInterval(timer);
}
