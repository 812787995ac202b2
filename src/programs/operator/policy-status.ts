// Writes the status of policies: whether each is understood, and on which nodes it is in force. Nodes tell by a digest which
// set of policies they enforce, and with what these refer to; the operator remembers the sets that it has seen, and so
// knows how far each node is.
import { hash } from 'node:crypto';
import type { Condition } from '../../connect/load-balancers/parse-request.ts';
import { withCondition } from '../../connect/load-balancers/status-conditions.ts';
import { parseServiceSlice } from '../../connect/services/parse-service.ts';
import { deepEqual } from '../../core/equal.ts';
import { errorText } from '../../core/errors.ts';
import {
  type CidrGroupRow,
  type NamespaceRow,
  type PolicyObjectRow,
  type PolicyServiceRow,
  policyKey,
  type ServiceSliceRow,
} from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { policyResources } from '../../kube/cilium/schemas.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources, type Resource, resourcePath } from '../../kube/resource.ts';
import { type Watch, type WatchState, watch, watchIntoTable } from '../../kube/watch.ts';
import { type WeirNodeReport, weirResources } from '../../kube/weir/schemas.ts';
import { parseCidrGroup } from '../../secure/policy/parse-cidr-group.ts';
import { parsePolicy } from '../../secure/policy/parse-policy.ts';
import {
  createSetDigest,
  groupContent,
  policyContent,
  serviceContent,
  stagingContent,
} from '../../secure/policy/policy-digest.ts';
import { overNamespaceLimit } from '../../secure/policy/policy-limits.ts';
import { enforcementAnnotation } from '../../secure/policy/policy-reader.ts';
import { type NodeProgress, policyConditions, unenforcedText } from '../../secure/policy/policy-status.ts';
import { emptyContext, referencesOf, resolvePolicy } from '../../secure/policy/resolve-policy.ts';
import type { Log } from '../log.ts';
import { followPolicyServices } from '../policy-services.ts';
import type { OperatorNode } from './node-blocks.ts';
import { serialize } from './serialize.ts';
import { createSetHistory } from './set-history.ts';

interface PolicyObject extends KubeObject {
  readonly status?: { readonly conditions?: readonly Condition[] };
}

interface ReportRow {
  readonly node: string;
  readonly digest: string;
  /** Absent from agents that do not tell. */
  readonly refers?: WeirNodeReport['policies']['refers'];
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
/** What a node may be behind with, each told by a digest of its own: they change without knowing of each other. */
const parts = ['policies', 'staging', 'groups', 'services'] as const;
type Steps = Readonly<Record<(typeof parts)[number], number>>;
const emptyDigest = createSetDigest().text;
const settleMs = 500;
const writesAtOnce = 16;

/** Works until the signal aborts. */
export function startPolicyStatus(
  options: {
    readonly client: KubeClient;
    readonly log: Log;
    readonly mayAct: () => boolean;
    /** A status was written. */
    readonly onWritten: () => void;
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
  const services = createTable<PolicyServiceRow>({ name: 'policy-services', key: (row) => row.key });
  const history = {
    policies: createSetHistory(),
    staging: createSetHistory(),
    groups: createSetHistory(),
    services: createSetHistory(),
  };
  history.staging.set('', stagingContent(options.clusterStaged));
  const told = new Map<string, string>();
  const reachedBy = new Map<string, Steps>();
  const listed = new Set<string>();

  function take(resource: (typeof kinds)[number], item: PolicyObject): void {
    const { row } = parsePolicy({ ...item, kind: resource.kind }, options.ignoredLabels)!;
    if (row === undefined) return;
    objects.set(row.key, { object: item, resource, row });
    history.policies.set(row.key, policyContent(row));
    if (referencesOf(row).has('services')) followServices();
  }

  function drop(key: string): void {
    objects.delete(key);
    told.delete(key);
    history.policies.set(key, undefined);
    history.policies.forget(key);
  }

  /** Few clusters have policies that name services. */
  let followsServices = false;
  function followServices(): void {
    if (followsServices) return;
    followsServices = true;
    const slices = createTable<ServiceSliceRow, 'service'>({
      name: 'service-slices',
      key: (row) => row.key,
      indexes: { service: (row) => row.service },
    });
    watches.push(
      watchIntoTable<KubeObject, ServiceSliceRow>(
        client,
        kubernetesResources.endpointSlices,
        slices,
        (object) => parseServiceSlice(object as Parameters<typeof parseServiceSlice>[0]),
        { onState },
      ),
    );
    const following = followPolicyServices({
      client,
      slices,
      ignoredLabels: options.ignoredLabels,
      table: services,
      onState,
      onListed: soon,
    });
    watches.push(following.watch);
    stops.push(following.stop);
  }

  /** Takes what policies refer to. */
  function track<R>(
    table: ReadTable<R>,
    to: ReturnType<typeof createSetHistory>,
    content: (row: R) => string | undefined,
  ): () => void {
    return table.subscribe(({ changes }) => {
      for (const { key, after } of changes) to.set(String(key), after && content(after));
      soon();
    });
  }

  /** The steps that a node must have taken to enforce a policy as it is now. */
  function stepsFor(key: string): Steps {
    const row = objects.get(key)?.row;
    let [staging, groups, named] = [0, 0, 0];
    if (row?.enforcement === 'default') {
      staging = Math.max(history.staging.changedAt(''), history.staging.changedAt(row.namespace));
    }
    for (const { ingress, egress } of row?.specs ?? []) {
      for (const peer of [...ingress, ...egress].flatMap((rule) => rule.peers ?? [])) {
        if (peer.kind === 'cidr-group') groups = Math.max(groups, history.groups.changedAt(peer.name));
        else if (peer.kind === 'cidr-groups') groups = history.groups.now;
        else if (peer.kind === 'service' && peer.namespace !== undefined)
          named = Math.max(named, history.services.changedAt(`${peer.namespace}/${peer.name}`));
        else if (peer.kind === 'service' || peer.kind === 'services') named = history.services.now;
      }
    }
    return { policies: history.policies.changedAt(key), staging, groups, services: named };
  }

  /** How far a node has come by what it says. Agents that do not tell of a part are taken to have it. */
  function stepsOf(report: ReportRow): Steps {
    const { digest, refers } = report;
    return {
      policies: history.policies.positionOf(digest),
      staging: refers === undefined ? history.staging.now : history.staging.positionOf(refers.staging),
      groups: refers === undefined ? history.groups.now : history.groups.positionOf(refers.groups),
      services:
        refers === undefined ? history.services.now : history.services.positionOf(refers.services ?? emptyDigest),
    };
  }

  /** How far each node is that runs an agent, by name: one that never told anything has no pods to protect. A set that was never seen here is on the way between two: nodes do not go back. */
  function positions(): { readonly report: ReportRow; readonly node: string; readonly at: Steps }[] {
    for (const node of reachedBy.keys()) if (!nodes.has(node)) reachedBy.delete(node);
    return [...nodes.rows()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap(({ name }) => {
        const report = reports.get(name);
        if (report === undefined) return [];
        const [said, before] = [stepsOf(report), reachedBy.get(name)];
        const at = {} as Record<keyof Steps, number>;
        for (const part of parts) at[part] = Math.max(said[part], before?.[part] ?? -1);
        reachedBy.set(name, at);
        return [{ report, node: name, at }];
      });
  }

  /** What each policy's status is made of. Policies that the same nodes have share one list: most are on every node. */
  function progressAmong(all: ReturnType<typeof positions>): (key: string) => readonly NodeProgress[] {
    const lists = new Map<string, readonly NodeProgress[]>();
    return (key) => {
      const due = stepsFor(key);
      const reached = all.map(({ at }) => parts.every((part) => at[part] >= due[part]));
      const which = reached.map(Number).join('');
      let list = lists.get(which);
      if (list === undefined) {
        list = all.map(({ node, report: { revision, problem, reason } }, i) => ({
          node,
          reached: reached[i]!,
          revision,
          ...(problem !== undefined && { problem, ...(reason !== undefined && { reason }) }),
        }));
        lists.set(which, list);
      }
      return list;
    };
  }

  /** Those that are understood, and refused for what they ask of nodes: with the groups and services that they name, or their namespace. */
  function refusedNow(): Map<string, string> {
    const { ignoredLabels } = options;
    const context = {
      ...emptyContext,
      cidrGroups: () => cidrGroups.rows(),
      services: () => services.rows(),
      ...(ignoredLabels && { ignoredLabels }),
    };
    const filledIn = [...objects.values()].map(({ row }) => {
      const refers = referencesOf(row);
      const resolves = row.error !== undefined || refers.has('cidr-groups') || refers.has('services');
      return { ...row, specs: resolves ? resolvePolicy(row, context) : row.specs };
    });
    const alone = filledIn.flatMap(({ key, specs, error }): [string, string][] => {
      const over = error === undefined ? specs.find((each) => each.error !== undefined)?.error : undefined;
      return over === undefined ? [] : [[key, over]];
    });
    const rows = filledIn.filter(({ namespace }) => namespace !== '');
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
        options.onWritten();
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
        !namespaces.initialized ||
        (followsServices && !services.initialized) ||
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

  const stops = [
    ...[reports, nodes].map((table: ReadTable<unknown>) => table.subscribe(soon)),
    track(namespaces, history.staging, (row) => stagingContent(row.staged)),
    track(cidrGroups, history.groups, groupContent),
    track(services, history.services, serviceContent),
  ];
  const watches: Watch[] = [];
  watches.push(
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
  );
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
