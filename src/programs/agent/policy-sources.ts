// Policies of all kinds and what they refer to, followed into one table of what is to be compiled.
import {
  type CidrGroupRow,
  type NamespaceRow,
  type NodeRow,
  type PolicyObjectRow,
  type PolicyRow,
  type PolicyServiceRow,
  policyKey,
  type ServiceSliceRow,
} from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { policyResources } from '../../kube/cilium/schemas.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources, type Resource } from '../../kube/resource.ts';
import { type Watch, type WatchState, watch, watchIntoTable } from '../../kube/watch.ts';
import { parseCidrGroup } from '../../secure/policy/parse-cidr-group.ts';
import { parsePolicy } from '../../secure/policy/parse-policy.ts';
import { type EssentialSources, resolvePolicies } from '../../secure/policy/resolve-policies.ts';
import { referencesOf } from '../../secure/policy/resolve-policy.ts';
import { followPolicyServices } from '../policy-services.ts';
import type { SeenPolicy } from './policy-fence.ts';

/** The tables of policy. */
export interface PolicySources {
  /** As the API has them. A policy that names services comes when the services are known. */
  readonly objects: ReadTable<PolicyObjectRow>;
  /** The newest version of each of `objects`, its status included. */
  readonly seen: ReadTable<SeenPolicy>;
  /** What the compiler takes. */
  readonly policies: ReadTable<PolicyRow>;
  readonly cidrGroups: ReadTable<CidrGroupRow>;
  readonly services: ReadTable<PolicyServiceRow>;
  /** Derives now what follows from the objects. */
  flush(): void;
  watches(): WatchState[];
  stop(): void;
}

/** The kinds of policies. */
export const policyKinds: readonly Resource[] = [
  kubernetesResources.networkPolicies,
  policyResources.networkPolicies,
  policyResources.clusterwideNetworkPolicies,
  policyResources.clusterNetworkPolicies,
];

/** Follows policies. `onProblems` is told of what is wrong with one, and with none when it is mended or gone. */
export function followPolicies(options: {
  readonly client: KubeClient;
  readonly nodeName: string;
  readonly clusterStaged: boolean;
  readonly essential?: EssentialSources;
  readonly ignoredLabels?: readonly string[];
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly nodes: ReadTable<NodeRow>;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly onState: (state: WatchState) => void;
  readonly onProblems: (policy: string, problems: readonly string[]) => void;
}): PolicySources {
  const { client, nodeName, clusterStaged, namespaces, nodes, onState, onProblems } = options;
  const objects = createTable<PolicyObjectRow>({ name: 'policy-objects', key: (row) => row.key });
  const seen = createTable<SeenPolicy>({ name: 'policies-seen', key: (row) => row.key });
  const policies = createTable<PolicyRow>({ name: 'policies', key: (row) => row.key });
  const cidrGroups = createTable<CidrGroupRow>({ name: 'cidr-groups', key: (row) => row.name });
  const services = createTable<PolicyServiceRow>({ name: 'policy-services', key: (row) => row.key });

  const read = (object: KubeObject, kind: string): PolicyObjectRow | undefined => {
    const { row, problems } = parsePolicy({ ...object, kind }, options.ignoredLabels)!;
    onProblems(policyKey(kind, object.metadata.namespace ?? '', object.metadata.name), problems);
    return row;
  };
  /** Policies that name services, while services are on their way: a rule that denies them would deny nobody. */
  const held = new Map<string, [PolicyObjectRow, SeenPolicy]>();
  let knowsServices = false;
  function put(rows: readonly [PolicyObjectRow, SeenPolicy][], gone: readonly string[] = []): void {
    for (const key of [...gone, ...rows.map(([row]) => row.key)]) held.delete(key);
    const waits = ([row]: (typeof rows)[number]): boolean =>
      objects.initialized && !knowsServices && referencesOf(row).has('services');
    for (const each of rows.filter(waits)) held.set(each[0].key, each);
    const now = rows.filter((each) => !waits(each));
    objects.batch(() => {
      objects.delete(gone);
      objects.upsert(now.map(([row]) => row));
    });
    // After the objects: whoever waits for a version finds what it says.
    seen.batch(() => {
      seen.delete(gone);
      seen.upsert(now.map(([, version]) => version));
    });
    if (held.size > 0) startFollowingServices();
  }
  const listed = new Set<string>();
  const watches: Watch[] = policyKinds.map((resource) =>
    watch<KubeObject>(
      client,
      resource,
      {
        list(items) {
          const rows = items.flatMap((item) => versioned(item, read(item, resource.kind)));
          const now = new Set(rows.map(([row]) => row.key));
          const known = [...objects.rows(), ...[...held.values()].map(([row]) => row)];
          const gone = known.filter((row) => row.kind === resource.kind && !now.has(row.key));
          put(
            rows,
            gone.map((row) => row.key),
          );
          listed.add(resource.kind);
          if (listed.size === policyKinds.length) {
            followServicesWhenNeeded();
            objects.markInitialized();
          }
        },
        upsert(item) {
          put(versioned(item, read(item, resource.kind)));
        },
        delete(item) {
          const key = policyKey(resource.kind, item.metadata.namespace ?? '', item.metadata.name);
          onProblems(key, []);
          put([], [key]);
        },
      },
      { onState, optional: resource.group !== kubernetesResources.networkPolicies.group },
    ),
  );
  watches.push(
    watchIntoTable<KubeObject, CidrGroupRow>(client, policyResources.cidrGroups, cidrGroups, parseCidrGroup, {
      onState,
      optional: true,
    }),
  );

  // Few clusters have policies that name services: the others need not hold them all.
  let followsServices = false;
  const stops: (() => void)[] = [];
  function followServicesWhenNeeded(): void {
    if ([...objects.rows()].some((row) => referencesOf(row).has('services'))) startFollowingServices();
    else services.markInitialized();
  }
  function startFollowingServices(): void {
    if (followsServices) return;
    followsServices = true;
    const onListed = (): void => {
      if (knowsServices) return;
      knowsServices = true;
      put([...held.values()]);
    };
    const { watch: following, stop } = followPolicyServices({
      client,
      slices: options.slices,
      ignoredLabels: options.ignoredLabels,
      table: services,
      onState,
      onListed,
    });
    watches.push(following);
    stops.push(stop);
  }
  const derivation = resolvePolicies({ objects, namespaces, nodes, cidrGroups, services }, policies, {
    nodeName,
    clusterStaged,
    ...(options.essential && { essential: options.essential }),
    ...(options.ignoredLabels && { ignoredLabels: options.ignoredLabels }),
  });
  return {
    objects,
    seen,
    policies,
    cidrGroups,
    services,
    flush: derivation.flush,
    watches: () => watches.map((each) => each.state()),
    stop() {
      derivation.stop();
      for (const stop of stops) stop();
      for (const each of watches) each.stop();
    },
  };
}

function versioned(object: KubeObject, row: PolicyObjectRow | undefined): [PolicyObjectRow, SeenPolicy][] {
  if (row === undefined) return [];
  return [[row, { key: row.key, resourceVersion: object.metadata.resourceVersion ?? '' }]];
}
