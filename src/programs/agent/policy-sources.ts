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
import { resolvePolicies } from '../../secure/policy/resolve-policies.ts';
import { referencesOf } from '../../secure/policy/resolve-policy.ts';

/** The tables of policy. */
export interface PolicySources {
  /** As the API has them. */
  readonly objects: ReadTable<PolicyObjectRow>;
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
  readonly ignoredLabels?: readonly string[];
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly nodes: ReadTable<NodeRow>;
  readonly onState: (state: WatchState) => void;
  readonly onProblems: (policy: string, problems: readonly string[]) => void;
}): PolicySources {
  const { client, nodeName, clusterStaged, namespaces, nodes, onState, onProblems } = options;
  const objects = createTable<PolicyObjectRow>({ name: 'policy-objects', key: (row) => row.key });
  const policies = createTable<PolicyRow>({ name: 'policies', key: (row) => row.key });
  const cidrGroups = createTable<CidrGroupRow>({ name: 'cidr-groups', key: (row) => row.name });
  const services = createTable<PolicyServiceRow>({ name: 'policy-services', key: (row) => row.key });

  const read = (object: KubeObject, kind: string): PolicyObjectRow | undefined => {
    const { row, problems } = parsePolicy({ ...object, kind }, options.ignoredLabels)!;
    onProblems(policyKey(kind, object.metadata.namespace ?? '', object.metadata.name), problems);
    if (row === undefined) return undefined;
    const { generation, resourceVersion } = object.metadata;
    return { ...row, ...(generation !== undefined && { generation }), ...(resourceVersion && { resourceVersion }) };
  };
  const listed = new Set<string>();
  const watches: Watch[] = policyKinds.map((resource) =>
    watch<KubeObject>(
      client,
      resource,
      {
        list(items) {
          const rows = items.flatMap((item) => read(item, resource.kind) ?? []);
          const now = new Set(rows.map((row) => row.key));
          objects.batch(() => {
            const before = [...objects.rows()].filter((row) => row.kind === resource.kind && !now.has(row.key));
            objects.delete(before.map((row) => row.key));
            objects.upsert(rows);
          });
          listed.add(resource.kind);
          if (listed.size === policyKinds.length) {
            followServicesWhenNeeded();
            objects.markInitialized();
          }
        },
        upsert(item) {
          const row = read(item, resource.kind);
          if (row !== undefined) objects.upsert(row);
        },
        delete(item) {
          const key = policyKey(resource.kind, item.metadata.namespace ?? '', item.metadata.name);
          onProblems(key, []);
          objects.delete(key);
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
    if (followsServices || listed.size < policyKinds.length) return;
    if (![...objects.rows()].some((row) => referencesOf(row).has('services'))) {
      services.markInitialized();
      return;
    }
    followsServices = true;
    watches.push(...followServices(client, services, onState));
  }
  const stopLooking = objects.subscribe(followServicesWhenNeeded);
  const derivation = resolvePolicies({ objects, namespaces, nodes, cidrGroups, services }, policies, {
    nodeName,
    clusterStaged,
  });
  return {
    objects,
    policies,
    cidrGroups,
    services,
    flush: derivation.flush,
    watches: () => watches.map((each) => each.state()),
    stop() {
      stopLooking();
      derivation.stop();
      for (const each of watches) each.stop();
    },
  };
}

/** Services, and the addresses of those whose endpoints somebody writes by hand. */
function followServices(
  client: KubeClient,
  table: Table<PolicyServiceRow>,
  onState: (state: WatchState) => void,
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
  const write = (keys: Iterable<string>): void =>
    table.batch(() => {
      for (const key of keys) {
        const object = objects.get(key);
        if (object === undefined) table.delete(key);
        else table.upsert(rowOf(key, object));
      }
      if (listed.size === 2) table.markInitialized();
    });
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
