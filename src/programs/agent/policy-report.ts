// Tells the cluster which policies this node enforces, and with what they refer to: in one object of its own, which the operator reads for the status of
// policies. Written when the kernel is in step and something has changed. Every node has something to tell when a policy
// changes, so that the more nodes there are, the longer each lets pass: the API server has a bounded number of writes.
import { errorText } from '../../core/errors.ts';
import type { CidrGroupRow, NamespaceRow, PolicyObjectRow, PolicyServiceRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type WeirNodeReport, weirResources } from '../../kube/weir/schemas.ts';
import {
  createSetDigest,
  groupContent,
  policyContent,
  serviceContent,
  stagingContent,
} from '../../secure/policy/policy-digest.ts';
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
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly clusterStaged: boolean;
  readonly cidrGroups: ReadTable<CidrGroupRow>;
  /** Not initialized, or empty, while no policy names services. */
  readonly services: ReadTable<PolicyServiceRow>;
  /** Whether all that tables hold is in the kernel. */
  readonly inStep: () => boolean;
  /** What keeps this node from enforcing its policies. Told also while the kernel is not in step. */
  readonly problem: () => PolicyProblem | undefined;
  readonly log: Log;
}): () => void {
  const { client, node, nodes, objects, services, log } = options;
  const policies = digestOf(objects, policyContent);
  const staging = digestOf(options.namespaces, (row) => stagingContent(row.staged), [
    '',
    stagingContent(options.clusterStaged)!,
  ]);
  const groups = digestOf(options.cidrGroups, groupContent);
  const named = digestOf(services, serviceContent);
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
      for (const each of [policies, staging, groups, named]) each.look();
    }
    if (!everInStep) return;
    const problem = options.problem();
    const refers = {
      staging: staging.text(),
      groups: groups.text(),
      ...(services.size > 0 && { services: named.text() }),
    };
    const now = `${policies.text()} ${Object.values(refers).join(' ')} ${problem?.message ?? ''}`;
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
          digest: policies.text(),
          refers,
          revision: policies.revision(),
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

/** The digest of a table as it was at the last look; `always` is in it beside the rows. */
function digestOf<R>(table: ReadTable<R>, content: (row: R) => string | undefined, always?: [string, string]) {
  let digest = createSetDigest();
  let seen = 0;
  if (always !== undefined) digest.set(...always);
  return {
    look(): void {
      const set = table.changesSince(seen);
      if (set.resync) {
        digest = createSetDigest();
        if (always !== undefined) digest.set(...always);
      }
      for (const { key, after } of set.changes) digest.set(String(key), after && content(after));
      seen = set.revision;
    },
    text: () => digest.text,
    revision: () => seen,
  };
}

/** The time in which all nodes may report once: nothing that a person sees up to a hundred nodes. */
function spreadMs(nodes: number): number {
  return nodes <= reportsPerSecond ? 0 : (nodes / reportsPerSecond) * 1_000;
}
