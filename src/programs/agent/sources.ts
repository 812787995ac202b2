// What the agent follows in the API, as tables. Only this node's pods; of other nodes' pods only the slices.

import { admitRemote, type RemoteAdmission } from '../../connect/addresses/admit-remote.ts';
import { identityKey } from '../../core/identity.ts';
import { canonicalIp } from '../../core/ip.ts';
import type {
  ContainerRow,
  HostPort,
  IdentityRow,
  NamedPort,
  NamespaceRow,
  NodeRow,
  PodRow,
  RemoteEndpointRow,
} from '../../core/rows.ts';
import { createTable, type ReadTable, type Table } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type Watch, type WatchHandler, type WatchState, watch, watchIntoTable } from '../../kube/watch.ts';
import { type WeirEndpointSlice, type WeirIdentity, type WeirNode, weirResources } from '../../kube/weir/schemas.ts';
import { enforcementAnnotation } from '../../secure/policy/policy-reader.ts';

/** Tables that follow the API, and how the following goes. */
export interface AgentSources {
  readonly pods: ReadTable<PodRow>;
  /** Containers of this node, those of pods on its own network too. */
  readonly containers: ReadTable<ContainerRow, 'pod' | 'uid'>;
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly nodes: ReadTable<NodeRow>;
  readonly identities: ReadTable<IdentityRow, 'key'>;
  readonly remoteEndpoints: ReadTable<RemoteEndpointRow>;
  readonly apiServers: ReadTable<{ address: string }>;
  /** Pods that other nodes tell of with addresses outside their blocks: ignored. */
  readonly refused: ReadonlyMap<string, RemoteEndpointRow>;
  watches(): WatchState[];
  stop(): void;
}

interface ContainerPort {
  readonly name?: string;
  readonly protocol?: string;
  readonly containerPort: number;
  readonly hostPort?: number;
  readonly hostIP?: string;
}

interface PodObject extends KubeObject {
  readonly metadata: KubeObject['metadata'] & {
    readonly ownerReferences?: readonly { kind: string; name: string; controller?: boolean }[];
  };
  readonly spec?: {
    readonly serviceAccountName?: string;
    readonly hostNetwork?: boolean;
    readonly containers?: readonly { ports?: readonly ContainerPort[] }[];
    readonly initContainers?: readonly {
      restartPolicy?: string;
      ports?: readonly ContainerPort[];
    }[];
  };
  readonly status?: {
    readonly podIPs?: readonly { ip: string }[];
    readonly phase?: string;
    readonly containerStatuses?: readonly ContainerStatus[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly ephemeralContainerStatuses?: readonly ContainerStatus[];
  };
}

interface ContainerStatus {
  readonly name: string;
  readonly image?: string;
  readonly containerID?: string;
}

interface EndpointSliceObject extends KubeObject {
  readonly endpoints?: readonly { addresses?: readonly string[] }[];
}

/** Follows everything the agent of `node` needs. */
export function followSources(options: {
  readonly client: KubeClient;
  readonly node: string;
  readonly onState: (state: WatchState) => void;
  /** Somebody, maybe this agent, deleted a slice of this node. */
  readonly onOwnSliceDeleted: (name: string) => void;
  /** A pod that another node tells of is ignored: it has an address outside that node's blocks. */
  readonly onRefused: (row: RemoteEndpointRow) => void;
}): AgentSources {
  const { client, node, onState } = options;
  const pods = createTable<PodRow>({ name: 'pods', key: (row) => row.key });
  const containers = createTable<ContainerRow, 'pod' | 'uid'>({
    name: 'containers',
    key: (row) => row.id,
    indexes: { pod: (row) => `${row.namespace}/${row.pod}`, uid: (row) => row.podUid },
  });
  const namespaces = createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name });
  const nodes = createTable<NodeRow>({ name: 'nodes', key: (row) => row.name });
  const identities = createTable<IdentityRow, 'key'>({
    name: 'identities',
    key: (row) => row.id,
    indexes: { key: (row) => identityKey(row.labels) },
  });
  const remoteEndpoints = createTable<RemoteEndpointRow, 'slice'>({ name: 'remote-endpoints', key: (row) => row.key });
  const apiServers = createTable<{ address: string }>({ name: 'api-servers', key: (row) => row.address });

  const admission = admitRemote(nodes, remoteEndpoints);
  const stopTelling = tellRefused(admission.refused, nodes, options.onRefused);

  const watches: Watch[] = [
    watchIntoTable<PodObject, PodRow>(
      client,
      kubernetesResources.pods,
      pods,
      podRow,
      { fieldSelector: `spec.nodeName=${node}`, onState },
      containersInto(containers),
    ),
    watchIntoTable<KubeObject, NamespaceRow>(client, kubernetesResources.namespaces, namespaces, namespaceRow, {
      onState,
    }),
    watchIntoTable<WeirNode, NodeRow>(client, weirResources.nodes, nodes, nodeRow, { onState }),
    watchIntoTable<WeirIdentity, IdentityRow>(client, weirResources.identities, identities, identityRow, { onState }),
    watchSlices(client, node, remoteEndpoints, admission, onState, options.onOwnSliceDeleted),
    watchApiServers(client, apiServers, onState),
  ];
  return {
    pods,
    containers,
    namespaces,
    nodes,
    identities,
    remoteEndpoints,
    apiServers,
    refused: admission.refused,
    watches: () => watches.map((each) => each.state()),
    stop() {
      stopTelling();
      for (const each of watches) each.stop();
    },
  };
}

/** A slice may come a moment before its node: what is refused for a while is told of, once. */
function tellRefused(
  refused: ReadonlyMap<string, RemoteEndpointRow>,
  nodes: ReadTable<NodeRow>,
  onRefused: (row: RemoteEndpointRow) => void,
): () => void {
  let before = new Set<RemoteEndpointRow>();
  const told = new Set<string>();
  const timer = setInterval(() => {
    if (!nodes.initialized) return;
    const now = new Set(refused.values());
    for (const row of now) if (before.has(row) && !told.has(row.key) && told.add(row.key)) onRefused(row);
    for (const key of told) if (!refused.has(key)) told.delete(key);
    before = now;
  }, 1_000);
  return () => clearInterval(timer);
}

/** A slice is many rows: what a new version of it does not name any more goes. */
function watchSlices(
  client: KubeClient,
  node: string,
  table: ReturnType<typeof createTable<RemoteEndpointRow, 'slice'>>,
  admission: RemoteAdmission,
  onState: (state: WatchState) => void,
  onOwnDeleted: (name: string) => void,
): Watch {
  const keysOf = new Map<string, Set<string>>();
  const rowsOf = (slice: WeirEndpointSlice): RemoteEndpointRow[] =>
    slice.node === node || !Array.isArray(slice.endpoints)
      ? []
      : slice.endpoints.map((endpoint) => ({
          key: `${slice.node}/${endpoint.id}`,
          node: slice.node,
          id: endpoint.id,
          namespace: endpoint.namespace,
          pod: endpoint.pod,
          ipv4: endpoint.ipv4 && canonicalIp(endpoint.ipv4),
          ipv6: endpoint.ipv6 && canonicalIp(endpoint.ipv6),
          identity: endpoint.identity,
          namedPorts: endpoint.ports ?? [],
          workload: endpoint.workload,
        }));
  const owned = (key: string, except: string) => [...keysOf].some(([name, keys]) => name !== except && keys.has(key));
  const put = (slice: WeirEndpointSlice) => {
    const rows = rowsOf(slice);
    const name = slice.metadata.name;
    const before = keysOf.get(name) ?? new Set();
    const now = new Set(rows.map((row) => row.key));
    keysOf.set(name, now);
    table.batch(() => {
      // An endpoint may have moved to another slice before this one let it go.
      for (const key of before) if (!now.has(key) && !owned(key, name)) admission.delete(key);
      admission.upsert(rows);
    });
  };
  return watch<WeirEndpointSlice>(
    client,
    weirResources.endpointSlices,
    {
      list(items) {
        keysOf.clear();
        const rows = items.flatMap((item) => {
          const own = rowsOf(item);
          keysOf.set(item.metadata.name, new Set(own.map((row) => row.key)));
          return own;
        });
        admission.replaceAll(rows);
        table.markInitialized();
      },
      upsert: put,
      delete(item) {
        if (item.node === node) onOwnDeleted(item.metadata.name);
        const before = keysOf.get(item.metadata.name) ?? new Set();
        keysOf.delete(item.metadata.name);
        table.batch(() => {
          for (const key of before) if (!owned(key, item.metadata.name)) admission.delete(key);
        });
      },
    },
    { onState },
  );
}

function watchApiServers(
  client: KubeClient,
  table: ReturnType<typeof createTable<{ address: string }>>,
  onState: (state: WatchState) => void,
): Watch {
  const bySlice = new Map<string, string[]>();
  const write = () => {
    table.replaceAll([...new Set([...bySlice.values()].flat())].map((address) => ({ address })));
    table.markInitialized();
  };
  const addressesOf = (slice: EndpointSliceObject) =>
    (slice.endpoints ?? []).flatMap((endpoint) =>
      (endpoint.addresses ?? []).flatMap((address) => canonicalIp(address) ?? []),
    );
  return watch<EndpointSliceObject>(
    client,
    kubernetesResources.endpointSlices,
    {
      list(items) {
        bySlice.clear();
        for (const item of items) bySlice.set(item.metadata.name, addressesOf(item));
        write();
      },
      upsert(item) {
        bySlice.set(item.metadata.name, addressesOf(item));
        write();
      },
      delete(item) {
        bySlice.delete(item.metadata.name);
        write();
      },
    },
    { namespace: 'default', labelSelector: 'kubernetes.io/service-name=kubernetes', onState },
  );
}

/** A pod is many rows: containers that it had before stay until it goes, since their processes may still be told of. */
function containersInto(table: Table<ContainerRow, 'pod' | 'uid'>): WatchHandler<PodObject> {
  return {
    list: (pods) => table.replaceAll(pods.flatMap(containerRows)),
    upsert(pod) {
      for (const row of containerRows(pod)) table.upsert(row);
    },
    delete({ metadata }) {
      for (const row of table.by('pod', `${metadata.namespace}/${metadata.name}`)) table.delete(row.id);
    },
  };
}

function containerRows({ metadata, status = {} }: PodObject): ContainerRow[] {
  return [
    ...(status.initContainerStatuses ?? []),
    ...(status.containerStatuses ?? []),
    ...(status.ephemeralContainerStatuses ?? []),
  ].flatMap(({ name, image = '', containerID }) =>
    containerID === undefined
      ? []
      : [
          {
            id: containerID.replace(/^.*:\/\//, ''),
            name,
            image,
            podUid: metadata.annotations?.['kubernetes.io/config.mirror'] ?? metadata.uid ?? '',
            namespace: metadata.namespace ?? 'default',
            pod: metadata.name,
          },
        ],
  );
}

function namespaceRow({ metadata }: KubeObject): NamespaceRow {
  const enforcement = metadata.annotations?.[enforcementAnnotation];
  const staged = enforcement === 'staged' ? true : enforcement === 'enforced' ? false : undefined;
  return { name: metadata.name, labels: metadata.labels ?? {}, ...(staged !== undefined && { staged }) };
}

function podRow(pod: PodObject): PodRow | undefined {
  if (pod.spec?.hostNetwork) return undefined;
  const sidecars = (pod.spec?.initContainers ?? []).filter((container) => container.restartPolicy === 'Always');
  const ports = [...(pod.spec?.containers ?? []), ...sidecars].flatMap((container) => container.ports ?? []);
  const namedPorts = ports.flatMap((port): NamedPort[] =>
    port.name === undefined
      ? []
      : [{ name: port.name, protocol: (port.protocol ?? 'TCP') as NamedPort['protocol'], port: port.containerPort }],
  );
  const over = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
  const hostPorts = ports.flatMap((port): HostPort[] => {
    if (!port.hostPort || over) return [];
    const hostIp = canonicalIp(port.hostIP ?? '');
    return [
      {
        hostPort: port.hostPort,
        containerPort: port.containerPort,
        protocol: (port.protocol ?? 'TCP') as HostPort['protocol'],
        // Any address of a family means all of both.
        ...(hostIp === undefined || hostIp === '0.0.0.0' || hostIp === '::' ? {} : { hostIp }),
      },
    ];
  });
  return {
    key: `${pod.metadata.namespace}/${pod.metadata.name}`,
    namespace: pod.metadata.namespace ?? 'default',
    name: pod.metadata.name,
    // A pod from a file of the kubelet has another uid there, and tells the API which.
    uid: pod.metadata.annotations?.['kubernetes.io/config.mirror'] ?? pod.metadata.uid ?? '',
    labels: pod.metadata.labels ?? {},
    serviceAccount: pod.spec?.serviceAccountName ?? 'default',
    namedPorts,
    ...(hostPorts.length > 0 ? { hostPorts } : {}),
    addresses: (pod.status?.podIPs ?? []).flatMap((each) => canonicalIp(each.ip) ?? []),
    workload: workloadOf(pod),
  };
}

/** A ReplicaSet is a Deployment's way to make pods: people know the Deployment. */
function workloadOf(pod: PodObject): PodRow['workload'] {
  const owner = pod.metadata.ownerReferences?.find((each) => each.controller) ?? pod.metadata.ownerReferences?.[0];
  if (owner === undefined) return { kind: 'Pod', name: pod.metadata.name };
  const hash = pod.metadata.labels?.['pod-template-hash'];
  if (owner.kind === 'ReplicaSet' && hash !== undefined && owner.name.endsWith(`-${hash}`))
    return { kind: 'Deployment', name: owner.name.slice(0, -hash.length - 1) };
  return { kind: owner.kind, name: owner.name };
}

function nodeRow(object: WeirNode): NodeRow {
  return {
    name: object.metadata.name,
    labels: object.spec.labels ?? {},
    addresses: object.spec.addresses.flatMap((address) => canonicalIp(address) ?? []),
    podCidrs: object.spec.podCIDRs.flatMap((cidr) => canonicalIp(cidr) ?? []),
    clusterPools: object.spec.clusterPools.flatMap((cidr) => canonicalIp(cidr) ?? []),
  };
}

function identityRow(object: WeirIdentity): IdentityRow | undefined {
  const id = Number(object.metadata.name);
  return Number.isInteger(id) && id > 0 && Array.isArray(object.labels) ? { id, labels: object.labels } : undefined;
}
