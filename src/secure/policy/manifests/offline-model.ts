// What policy would see of a cluster that is known from manifests alone: its pods, namespaces, services and nodes, and the
// policies among them, as one node sees them.
import { labelCounts, reservedIdentities, reservedIdentityRows } from '../../../core/identity.ts';
import { canonicalIp } from '../../../core/ip.ts';
import type { LabelMap } from '../../../core/labels.ts';
import type {
  AddressRow,
  CidrGroupRow,
  NamespaceRow,
  PolicyKind,
  PolicyRow,
  PolicyServiceRow,
  PrefixRow,
} from '../../../core/rows.ts';
import type { PolicyModel } from '../evaluate.ts';
import { parseCidrGroup } from '../parse-cidr-group.ts';
import { isPolicyKind, parsePolicy } from '../parse-policy.ts';
import { enforcementAnnotation, type ParsedPolicy } from '../policy-reader.ts';
import { type PolicyContext, resolvePolicy } from '../resolve-policy.ts';
import { fields, labelsOf, list, type OfflinePod, offlinePods, podRows } from './offline-pods.ts';
import type { Manifest } from './read-manifests.ts';

/** A policy of a file. */
export interface OfflinePolicy extends ParsedPolicy {
  readonly kind: PolicyKind;
  readonly manifest: Manifest;
  /** What the compiler would take; empty for one that has no name, and for policies of other nodes. */
  readonly rows: readonly PolicyRow[];
}

/** A cluster from manifests. */
export interface OfflineModel {
  readonly model: PolicyModel;
  readonly context: PolicyContext;
  readonly services: readonly PolicyServiceRow[];
  readonly policies: readonly OfflinePolicy[];
  readonly pods: readonly OfflinePod[];
  /** Addresses that were made up. */
  readonly planned: ReadonlySet<string>;
}

/** How the manifests are read. */
export interface OfflineOptions {
  /** Of objects that do not say theirs. */
  readonly defaultNamespace?: string;
  /** The node that looks; the first one of the manifests if absent. */
  readonly node?: string;
  /** Namespaces that are there whether a manifest speaks of them or not. */
  readonly namespaces?: readonly string[];
  /** Pods beside those of the manifests. */
  readonly pods?: readonly OfflinePod[];
}

/** Makes the model. Of two policies with one name the later counts, as with `kubectl apply`. */
export function offlineModel(manifests: readonly Manifest[], options: OfflineOptions = {}): OfflineModel {
  const { defaultNamespace = 'default' } = options;
  const of = (kind: string): Manifest[] => manifests.filter((each) => each.kind === kind);
  const pods = [...offlinePods(manifests, defaultNamespace), ...(options.pods ?? [])];
  const { identities, addresses, planned } = podRows(pods);
  const namespaces = namespaceRows(manifests, pods, options, defaultNamespace);
  const services = serviceRows(manifests, defaultNamespace);
  const nodes = of('Node').map(nodeOf);
  const here = nodes.find((node) => node.name === options.node) ?? nodes[0];
  const cidrGroups = of('CiliumCIDRGroup').flatMap(({ name, value }): CidrGroupRow[] =>
    name === '' ? [] : [{ ...parseCidrGroup(value), labels: labelsOf(fields(value.metadata).labels) }],
  );
  const context: PolicyContext = {
    clusterStaged: false,
    namespaceStaged: (name) => namespaces.get(name)?.staged,
    nodeLabels: here?.labels,
    nodes: () => nodes,
    cidrGroups: () => cidrGroups,
    services: () => services,
  };
  const policies = manifests.flatMap((manifest) => policyOf(manifest, context, defaultNamespace) ?? []);
  const inForce = new Map(policies.map(({ row, rows }) => [row?.key, rows]));
  return {
    model: {
      identities: [...reservedIdentityRows(), ...identities],
      namespaces: [...namespaces.values()],
      addresses: withNodes(addresses, nodes, here, apiServers(manifests)),
      prefixes: prefixRows(nodes),
      policies: [...inForce.values()].flat(),
    },
    context,
    services,
    policies,
    pods,
    planned,
  };
}

/** Whether an object is read as a policy. */
export function isPolicyManifest({ kind }: Manifest): boolean {
  return isPolicyKind(kind);
}

/** A policy as the API server would hand it on: with its namespace. */
export function policyObject(manifest: Manifest, defaultNamespace: string): Readonly<Record<string, unknown>> {
  const namespaced = manifest.kind === 'NetworkPolicy' || manifest.kind === 'CiliumNetworkPolicy';
  const { value } = manifest;
  if (!namespaced || fields(value.metadata).namespace !== undefined) return value;
  return { ...value, metadata: { ...fields(value.metadata), namespace: defaultNamespace } };
}

function policyOf(manifest: Manifest, context: PolicyContext, defaultNamespace: string): OfflinePolicy | undefined {
  const { kind } = manifest;
  if (!isPolicyKind(kind)) return undefined;
  const parsed = parsePolicy(policyObject(manifest, defaultNamespace))!;
  const rows = parsed.row === undefined ? [] : resolvePolicy(parsed.row, context);
  return { kind, manifest, ...parsed, rows };
}

/** The API server gives every namespace its name as a label. */
function namespaceRows(
  manifests: readonly Manifest[],
  pods: readonly OfflinePod[],
  options: OfflineOptions,
  defaultNamespace: string,
): Map<string, NamespaceRow> {
  const rows = new Map<string, NamespaceRow>();
  const add = (name: string, labels: LabelMap = {}, staged?: boolean): void => {
    const all = { 'kubernetes.io/metadata.name': name, ...labels };
    rows.set(name, { name, labels: all, ...(staged !== undefined && { staged }) });
  };
  for (const { kind, name, value } of manifests) {
    if (kind !== 'Namespace' || name === '') continue;
    const metadata = fields(value.metadata);
    const enforcement = fields(metadata.annotations)[enforcementAnnotation];
    add(name, labelsOf(metadata.labels), enforcement === undefined ? undefined : enforcement === 'staged');
  }
  const implied = [
    ...pods.map((pod) => pod.namespace),
    ...manifests.filter(isPolicyManifest).map((each) => each.namespace || defaultNamespace),
    ...(options.namespaces ?? []),
  ];
  for (const name of implied) if (!rows.has(name)) add(name);
  return rows;
}

function serviceRows(manifests: readonly Manifest[], defaultNamespace: string): PolicyServiceRow[] {
  const written = new Map<string, string[]>();
  const write = (key: string, addresses: readonly unknown[]): void => {
    const texts = addresses.flatMap((each) => (typeof each === 'string' ? (canonicalIp(each) ?? []) : []));
    written.set(key, [...(written.get(key) ?? []), ...texts]);
  };
  for (const { kind, name, namespace, value } of manifests) {
    const inNamespace = namespace || defaultNamespace;
    if (kind === 'EndpointSlice') {
      const service = labelsOf(fields(value.metadata).labels)['kubernetes.io/service-name'] ?? '';
      write(
        `${inNamespace}/${service}`,
        list(value.endpoints).flatMap((each) => list(fields(each).addresses)),
      );
    } else if (kind === 'Endpoints') {
      const subsets = list(value.subsets).flatMap((each) => list(fields(each).addresses));
      write(
        `${inNamespace}/${name}`,
        subsets.map((each) => fields(each).ip),
      );
    }
  }
  return manifests.flatMap(({ kind, name, namespace, value }): PolicyServiceRow[] => {
    if (kind !== 'Service' || name === '') return [];
    const inNamespace = namespace || defaultNamespace;
    const key = `${inNamespace}/${name}`;
    const labels = labelsOf(fields(value.metadata).labels);
    const selector = labelsOf(fields(value.spec).selector);
    const common = { key, namespace: inNamespace, name, labels };
    const addresses = [...new Set(written.get(key))].sort();
    if (Object.keys(selector).length === 0) return [{ ...common, addresses }];
    return [
      { ...common, selector, addresses: Object.keys(selector).every((each) => labelCounts(each)) ? [] : addresses },
    ];
  });
}

interface OfflineNode {
  readonly name: string;
  readonly labels: LabelMap;
  readonly addresses: readonly string[];
  readonly podCidrs: readonly string[];
}

function nodeOf({ name, value }: Manifest): OfflineNode {
  const addresses = list(fields(value.status).addresses)
    .map(fields)
    .filter((each) => each.type !== 'Hostname')
    .flatMap(({ address }) => (typeof address === 'string' ? (canonicalIp(address) ?? []) : []));
  const { podCIDRs, podCIDR } = fields(value.spec);
  const podCidrs = [...list(podCIDRs), ...(podCIDRs === undefined ? [podCIDR] : [])].flatMap((cidr) =>
    typeof cidr === 'string' && cidr.includes('/') ? (canonicalIp(cidr) ?? []) : [],
  );
  return { name, labels: labelsOf(fields(value.metadata).labels), addresses, podCidrs };
}

/** Where the API server answers: the endpoints of the service `kubernetes`. */
function apiServers(manifests: readonly Manifest[]): Set<string> {
  const own = manifests.filter(
    ({ kind, namespace, name, value }) =>
      (namespace || 'default') === 'default' &&
      ((kind === 'Endpoints' && name === 'kubernetes') ||
        (kind === 'EndpointSlice' &&
          labelsOf(fields(value.metadata).labels)['kubernetes.io/service-name'] === 'kubernetes')),
  );
  const found = own.flatMap(({ value }) => [
    ...list(value.endpoints).flatMap((each) => list(fields(each).addresses)),
    ...list(value.subsets)
      .flatMap((each) => list(fields(each).addresses))
      .map((each) => fields(each).ip),
  ]);
  return new Set(found.flatMap((each) => (typeof each === 'string' ? (canonicalIp(each) ?? []) : [])));
}

function withNodes(
  pods: readonly AddressRow[],
  nodes: readonly OfflineNode[],
  here: OfflineNode | undefined,
  apiServers: ReadonlySet<string>,
): AddressRow[] {
  const rows = new Map<string, AddressRow>();
  const plain = { namedPorts: [], ifindex: 0, endpointId: 0 } as const;
  for (const address of apiServers) {
    rows.set(address, { ...plain, address, identity: reservedIdentities['kube-apiserver'], kind: 'kube-apiserver' });
  }
  for (const row of pods) rows.set(row.address, row);
  for (const node of nodes) {
    const kind = node === here ? 'host' : 'remote-node';
    for (const address of node.addresses) {
      const apiServer = apiServers.has(address) && { apiServer: true };
      rows.set(address, {
        ...plain,
        address,
        identity: reservedIdentities[kind],
        kind,
        node: node.name,
        ...apiServer,
      });
    }
  }
  return [...rows.values()];
}

function prefixRows(nodes: readonly OfflineNode[]): PrefixRow[] {
  return [
    { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
    { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
    ...[...new Set(nodes.flatMap((node) => node.podCidrs))].map((cidr) => ({
      cidr,
      identity: reservedIdentities.unmanaged,
    })),
  ];
}
