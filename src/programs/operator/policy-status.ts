// Writes the status of policies: whether each is understood, and on which nodes it is in force. Nodes tell by a digest which
// set of policies they enforce; the operator remembers the sets that it has seen, and so knows how far each node is.
import { hash } from 'node:crypto';
import type { Condition } from '../../connect/load-balancers/parse-request.ts';
import { withCondition } from '../../connect/load-balancers/status-conditions.ts';
import { deepEqual } from '../../core/equal.ts';
import { errorText } from '../../core/errors.ts';
import { type CidrGroupRow, type NamespaceRow, type PolicyObjectRow, policyKey } from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { policyResources } from '../../kube/cilium/schemas.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources, type Resource, resourcePath } from '../../kube/resource.ts';
import { type WatchState, watch, watchIntoTable } from '../../kube/watch.ts';
import { type WeirNodeReport, weirResources } from '../../kube/weir/schemas.ts';
import { parseCidrGroup } from '../../secure/policy/parse-cidr-group.ts';
import { parsePolicy } from '../../secure/policy/parse-policy.ts';
import { createPolicyDigest } from '../../secure/policy/policy-digest.ts';
import { overNamespaceLimit } from '../../secure/policy/policy-limits.ts';
import { enforcementAnnotation } from '../../secure/policy/policy-reader.ts';
import { type NodeProgress, policyConditions, unenforcedText } from '../../secure/policy/policy-status.ts';
import { emptyContext, referencesOf, resolvePolicy } from '../../secure/policy/resolve-policy.ts';
import type { Log } from '../log.ts';
import type { OperatorNode } from './node-blocks.ts';
import { serialize } from './serialize.ts';

interface PolicyObject extends KubeObject {
  readonly status?: { readonly conditions?: readonly Condition[] };
}

interface ReportRow {
  readonly node: string;
  readonly digest: string;
  readonly revision: number;
  readonly problem?: string;
  readonly reason?: string;
}

const kinds: readonly (Resource & { readonly status: boolean })[] = [
  { ...kubernetesResources.networkPolicies, status: false },
  policyResources.networkPolicies,
  policyResources.clusterwideNetworkPolicies,
  policyResources.clusterNetworkPolicies,
];
/** Sets of policies that are remembered: a node further behind counts as not having reached any. */
const setsRemembered = 4_096;
const settleMs = 500;
const writesAtOnce = 16;

/** Works until the signal aborts. */
export function startPolicyStatus(
  options: {
    readonly client: KubeClient;
    readonly log: Log;
    readonly mayAct: () => boolean;
    readonly onState: (state: WatchState) => void;
    readonly nodes: ReadTable<OperatorNode>;
    readonly ignoredLabels?: readonly string[];
    readonly clusterStaged: boolean;
  },
  signal: AbortSignal,
): void {
  const { client, log, mayAct, onState, nodes } = options;
  const objects = new Map<
    string,
    { readonly object: PolicyObject; readonly resource: (typeof kinds)[number]; readonly row: PolicyObjectRow }
  >();
  const namespaces = createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name });
  const cidrGroups = createTable<CidrGroupRow>({ name: 'cidr-groups', key: (row) => row.name });
  const reports = createTable<ReportRow>({ name: 'node-reports', key: (row) => row.node });
  const digest = createPolicyDigest();
  /** The number of each set that was seen, and when each policy became what it is. */
  const sets = new Map<string, number>([[digest.text, 0]]);
  const changedAt = new Map<string, number>();
  const told = new Map<string, string>();
  const reachedBy = new Map<string, number>();
  let number = 0;
  const listed = new Set<string>();

  function take(resource: (typeof kinds)[number], item: PolicyObject): void {
    const { row } = parsePolicy({ ...item, kind: resource.kind }, options.ignoredLabels)!;
    if (row === undefined) return;
    objects.set(row.key, { object: item, resource, row });
    if (digest.set(row.key, row)) remember(row.key);
  }

  function drop(key: string): void {
    objects.delete(key);
    told.delete(key);
    if (digest.set(key, undefined)) remember(key);
    changedAt.delete(key);
  }

  function remember(key: string): void {
    changedAt.set(key, ++number);
    sets.delete(digest.text);
    sets.set(digest.text, number);
    for (const oldest of sets.keys()) {
      if (sets.size <= setsRemembered) break;
      sets.delete(oldest);
    }
  }

  /** How far each node is that runs an agent, by name: one that never told anything has no pods to protect. A set that was never seen here is on the way between two: nodes do not go back. */
  function positions(): { readonly report: ReportRow; readonly node: string; readonly at: number }[] {
    for (const node of reachedBy.keys()) if (!nodes.has(node)) reachedBy.delete(node);
    return [...nodes.rows()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap(({ name }) => {
        const report = reports.get(name);
        if (report === undefined) return [];
        const at = Math.max(sets.get(report.digest) ?? -1, reachedBy.get(name) ?? -1);
        reachedBy.set(name, at);
        return [{ report, node: name, at }];
      });
  }

  /** What each policy's status is made of. Policies that the same nodes have share one list: most are on every node. */
  function progressAmong(all: ReturnType<typeof positions>): (key: string) => readonly NodeProgress[] {
    const steps = [...new Set(all.map(({ at }) => at))].sort((a, b) => a - b);
    const lists = new Map<number, readonly NodeProgress[]>();
    return (key) => {
      const changed = changedAt.get(key) ?? 0;
      const behind = steps.findIndex((at) => at >= changed);
      let list = lists.get(behind);
      if (list === undefined) {
        list = all.map(({ node, report: { revision, problem, reason }, at }) => ({
          node,
          reached: at >= changed,
          revision,
          ...(problem !== undefined && { problem, ...(reason !== undefined && { reason }) }),
        }));
        lists.set(behind, list);
      }
      return list;
    };
  }

  /** Those that are understood, and refused for what they ask of nodes: with the groups that they name, or their namespace. */
  function refusedNow(): Map<string, string> {
    const alone = [...objects.values()].flatMap(({ row }): [string, string][] => {
      if (row.error !== undefined || !referencesOf(row).has('cidr-groups')) return [];
      const context = { ...emptyContext, cidrGroups: () => cidrGroups.rows() };
      const over = resolvePolicy(row, context).find((each) => each.error !== undefined)?.error;
      return over === undefined ? [] : [[row.key, over]];
    });
    const rows = [...objects.values()].flatMap(({ row }) => (row.namespace === '' ? [] : [row]));
    const groups = Map.groupBy(rows, ({ kind, namespace }) => `${kind}/${namespace}`);
    return new Map([...alone, ...[...groups.values()].flatMap((group) => [...overNamespaceLimit(group)])]);
  }

  function isStaged(row: PolicyObjectRow): boolean {
    if (row.enforcement !== 'default') return row.enforcement === 'staged';
    return namespaces.get(row.namespace)?.staged ?? options.clusterStaged;
  }

  async function write(
    key: string,
    nodesOf: ReturnType<typeof progressAmong>,
    refused: string | undefined,
  ): Promise<void> {
    const found = objects.get(key);
    if (found === undefined) return;
    const { object, resource } = found;
    const row = refused === undefined ? found.row : { ...found.row, error: refused };
    const said = policyConditions(row, isStaged(row), nodesOf(key));
    const { name, namespace } = object.metadata;
    if (resource.status) {
      const ours = new Set(said.map((each) => each.type));
      // Conditions of nodes that are gone go with them; those of others stay.
      const before = (object.status?.conditions ?? []).filter(
        ({ type }) => ours.has(type) || !type.endsWith('/Enforced'),
      );
      const conditions = said.reduce((list, { type, ...rest }) => {
        const old = before.find((each) => each.type === type);
        // A revision that went up alone is no news.
        const kept = old?.status === rest.status && old.reason === rest.reason && type.endsWith('/Enforced');
        return withCondition(list, type, kept ? { ...rest, message: old.message } : rest);
      }, before as Condition[]);
      if (!deepEqual(conditions, object.status?.conditions ?? [])) {
        if (!mayAct()) throw new Error('this operator does not lead any more');
        const written = await client.request<PolicyObject>(
          'PATCH',
          `${resourcePath(resource, namespace, name)}/status`,
          {
            body: { status: { conditions } },
            contentType: 'application/merge-patch+json',
            signal,
          },
        );
        if (objects.get(key) === found) objects.set(key, { ...found, object: written });
      }
    }
    await tell(key, row, object, resource);
  }

  /** What `kubectl describe` shows of what is wrong. */
  async function tell(key: string, row: PolicyObjectRow, object: PolicyObject, resource: Resource): Promise<void> {
    const text =
      row.error !== undefined
        ? `Not understood: ${row.error}. It isolates whom it selects, and allows nothing`
        : row.unenforced.length > 0
          ? `In part ${unenforcedText(row.kind)}: ${row.unenforced.join(', ')}`
          : '';
    if (text === (told.get(key) ?? '')) return;
    told.set(key, text);
    if (text === '') return;
    const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    const { name, namespace, uid } = object.metadata;
    // An operator before this one may have said so: the same words of the same object are one event.
    const words = hash('sha256', `${uid} ${text}`, 'hex').slice(0, 16);
    const event = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${name.slice(0, 230)}.${words}`, namespace: namespace ?? 'default' },
      involvedObject: {
        apiVersion: `${resource.group}/${resource.version}`,
        kind: resource.kind,
        name,
        ...(namespace !== undefined && { namespace }),
        uid,
      },
      type: 'Warning',
      reason: row.error !== undefined ? 'NotUnderstood' : 'NotEnforced',
      message: text.slice(0, 1_000),
      source: { component: 'weir-operator' },
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    };
    await client.create<KubeObject>(kubernetesResources.events, event).catch((error: unknown) => {
      if (!hasStatus(error, 409)) throw error;
    });
  }

  const reconcile = serialize(
    async () => {
      if (
        listed.size < kinds.length ||
        !reports.initialized ||
        !nodes.initialized ||
        !cidrGroups.initialized ||
        !mayAct()
      )
        return;
      const keys = [...objects.keys()];
      const nodesOf = progressAmong(positions());
      const refused = refusedNow();
      for (let first = 0; first < keys.length && !signal.aborted; first += writesAtOnce) {
        await Promise.all(
          keys.slice(first, first + writesAtOnce).map((key) =>
            write(key, nodesOf, refused.get(key)).catch((error: unknown) => {
              // It changed or went meanwhile: the watch brings it again.
              if (hasStatus(error, 404) || hasStatus(error, 409) || signal.aborted) return;
              log.warn('could not write the status of a policy', { policy: key, error: errorText(error) });
            }),
          ),
        );
      }
    },
    signal,
    (error) => log.warn('could not write the status of policies', { error: error.message }),
  );
  let timer: NodeJS.Timeout | undefined;
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      reconcile();
    }, settleMs);
  };

  const watches = [
    ...kinds.map((resource) =>
      watch<PolicyObject>(
        client,
        resource,
        {
          list(items) {
            const now = new Set(
              items.map(({ metadata }) => policyKey(resource.kind, metadata.namespace ?? '', metadata.name)),
            );
            for (const [key, { resource: of }] of objects) if (of === resource && !now.has(key)) drop(key);
            for (const item of items) take(resource, item);
            listed.add(resource.kind);
            soon();
          },
          upsert(item) {
            take(resource, item);
            soon();
          },
          delete({ metadata }) {
            drop(policyKey(resource.kind, metadata.namespace ?? '', metadata.name));
          },
        },
        { onState, optional: true },
      ),
    ),
    watchIntoTable<KubeObject, CidrGroupRow>(client, policyResources.cidrGroups, cidrGroups, parseCidrGroup, {
      onState,
      optional: true,
    }),
    watchIntoTable<WeirNodeReport, ReportRow>(
      client,
      weirResources.nodeReports,
      reports,
      ({ metadata, policies }) => ({ node: metadata.name, ...policies }),
      { onState },
    ),
    watchIntoTable<KubeObject, NamespaceRow>(
      client,
      kubernetesResources.namespaces,
      namespaces,
      ({ metadata }) => {
        const enforcement = metadata.annotations?.[enforcementAnnotation];
        const staged = enforcement === 'staged' ? true : enforcement === 'enforced' ? false : undefined;
        return { name: metadata.name, labels: {}, ...(staged !== undefined && { staged }) };
      },
      { onState },
    ),
  ];
  const stops = [reports, nodes, namespaces, cidrGroups].map((table: ReadTable<unknown>) => table.subscribe(soon));
  // Reports of nodes that are gone.
  stops.push(
    nodes.subscribe(() => {
      if (!nodes.initialized || !mayAct()) return;
      for (const { node } of reports.rows()) {
        if (!nodes.has(node)) client.delete(weirResources.nodeReports, node).catch(() => {});
      }
    }),
  );
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
    for (const each of watches) each.stop();
  });
}
