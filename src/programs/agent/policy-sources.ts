// Policies of all kinds and what they refer to, followed into one table of what is to be compiled.
import { canonicalIp } from '../../core/ip.ts';
import {
  type CidrGroupRow,
  type NamespaceRow,
  type NodeRow,
  type PolicyObjectRow,
  type PolicyRow,
  type PolicyServiceRow,
  policyKey,
} from '../../core/rows.ts';
import { createTable, type ReadTable, type Table } from '../../core/table.ts';
import { policyResources } from '../../kube/cilium/schemas.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources, type Resource } from '../../kube/resource.ts';
import { type Watch, type WatchState, watch, watchIntoTable } from '../../kube/watch.ts';
import { parseCidrGroup } from '../../secure/policy/parse-cidr-group.ts';
import { parsePolicy } from '../../secure/policy/parse-policy.ts';
import { type EssentialSources, resolvePolicies } from '../../secure/policy/resolve-policies.ts';
import { referencesOf } from '../../secure/policy/resolve-policy.ts';
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

interface ServiceObject extends KubeObject {
  readonly spec?: { readonly selector?: Readonly<Record<string, string>> };
}

interface SliceObject extends KubeObject {
  readonly endpoints?: readonly { readonly addresses?: readonly string[] }[];
}

/** The kinds of policies. */
export const policyKinds: readonly Resource[] = [
  kubernetesResources.networkPolicies,
  policyResources.networkPolicies,
  policyResources.clusterwideNetworkPolicies,
  policyResources.clusterNetworkPolicies,
];

/** Slices that nobody makes from a selector: only those of services without one matter here. */
const handWritten = 'endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io';

/** Follows policies. `onProblems` is told of what is wrong with one, and with none when it is mended or gone. */
export function followPolicies(options: {
  readonly client: KubeClient;
  readonly nodeName: string;
  readonly clusterStaged: boolean;
  readonly essential?: EssentialSources;
  readonly ignoredLabels?: readonly string[];
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly nodes: ReadTable<NodeRow>;
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
    watches.push(...followServices(client, services, onState, onListed));
  }
  const derivation = resolvePolicies({ objects, namespaces, nodes, cidrGroups, services }, policies, {
    nodeName,
    clusterStaged,
    ...(options.essential && { essential: options.essential }),
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
      for (const each of watches) each.stop();
    },
  };
}

function versioned(object: KubeObject, row: PolicyObjectRow | undefined): [PolicyObjectRow, SeenPolicy][] {
  if (row === undefined) return [];
  return [[row, { key: row.key, resourceVersion: object.metadata.resourceVersion ?? '' }]];
}

/** Services, and the addresses of those whose endpoints somebody writes by hand. */
function followServices(
  client: KubeClient,
  table: Table<PolicyServiceRow>,
  onState: (state: WatchState) => void,
  onListed: () => void,
): Watch[] {
  const objects = new Map<string, ServiceObject>();
  const slices = new Map<string, { service: string; addresses: readonly string[] }>();
  const listed = new Set<string>();
  const nameOf = ({ metadata }: KubeObject): string => `${metadata.namespace}/${metadata.name}`;
  const rowOf = (key: string, object: ServiceObject): PolicyServiceRow => {
    const { name, namespace = '', labels = {} } = object.metadata;
    const selector = object.spec?.selector;
    if (selector !== undefined && Object.keys(selector).length > 0) {
      return { key, namespace, name, labels, selector, addresses: [] };
    }
    const own = [...slices.values()].filter((slice) => slice.service === key);
    return { key, namespace, name, labels, addresses: [...new Set(own.flatMap((slice) => slice.addresses))].sort() };
  };
  const write = (keys: Iterable<string>): void => {
    table.batch(() => {
      for (const key of keys) {
        const object = objects.get(key);
        if (object === undefined) table.delete(key);
        else table.upsert(rowOf(key, object));
      }
      if (listed.size === 2) table.markInitialized();
    });
    if (listed.size === 2) onListed();
  };
  const putSlice = (slice: SliceObject): string => {
    const service = `${slice.metadata.namespace}/${slice.metadata.labels?.['kubernetes.io/service-name'] ?? ''}`;
    const addresses = (slice.endpoints ?? []).flatMap((each) => each.addresses ?? []);
    slices.set(nameOf(slice), { service, addresses: addresses.flatMap((each) => canonicalIp(each) ?? []) });
    return service;
  };
  return [
    watch<ServiceObject>(
      client,
      kubernetesResources.services,
      {
        list(items) {
          const before = [...objects.keys()];
          objects.clear();
          for (const item of items) objects.set(nameOf(item), item);
          listed.add('services');
          write([...before, ...objects.keys()]);
        },
        upsert(item) {
          objects.set(nameOf(item), item);
          write([nameOf(item)]);
        },
        delete(item) {
          objects.delete(nameOf(item));
          write([nameOf(item)]);
        },
      },
      { onState },
    ),
    watch<SliceObject>(
      client,
      kubernetesResources.endpointSlices,
      {
        list(items) {
          const before = [...slices.values()].map((slice) => slice.service);
          slices.clear();
          listed.add('slices');
          write([...before, ...items.map(putSlice)]);
        },
        upsert(item) {
          write([putSlice(item)]);
        },
        delete(item) {
          const service = slices.get(nameOf(item))?.service;
          slices.delete(nameOf(item));
          if (service !== undefined) write([service]);
        },
      },
      { labelSelector: handWritten, onState },
    ),
  ];
}
