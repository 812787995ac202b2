// Pods of manifests: real ones with the addresses they have, and one for each workload that would make some. Pods without
// addresses get planned ones, so that blocks that hold the pool of pods hold them too.
import { identityKey, identityLabels } from '../../../core/identity.ts';
import { canonicalIp } from '../../../core/ip.ts';
import type { LabelMap } from '../../../core/labels.ts';
import type { AddressRow, IdentityRow, NamedPort, PortProtocol, Workload } from '../../../core/rows.ts';
import type { Manifest } from './read-manifests.ts';

/** A pod, there already or to come. */
export interface OfflinePod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: LabelMap;
  readonly serviceAccount: string;
  readonly namedPorts: readonly NamedPort[];
  /** Those it has; none for a planned pod. */
  readonly addresses: readonly string[];
  readonly workload: Workload;
}

type Fields = Readonly<Record<string, unknown>>;

const templates = ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job', 'CronJob', 'ReplicationController'];

/** The pods of some manifests, each workload's once: its own pods stand for it where there are some. */
export function offlinePods(manifests: readonly Manifest[], defaultNamespace: string): OfflinePod[] {
  const pods = manifests.flatMap((each) => (each.kind === 'Pod' ? (podOf(each, defaultNamespace) ?? []) : []));
  const made = new Set(pods.map(workloadKey));
  const planned = manifests
    .filter(({ kind, value }) => templates.includes(kind) && ownerOf(fields(value.metadata)) === undefined)
    .flatMap((each) => plannedPod(each, defaultNamespace) ?? [])
    .filter((pod) => !made.has(workloadKey(pod)));
  return [...pods, ...planned];
}

/** The rows that pods become: an identity for each set of labels, a row for each address. */
export function podRows(
  pods: readonly OfflinePod[],
  pools: { readonly v4: string; readonly v6: string } = { v4: '10.244', v6: 'fd00:10:244:' },
): { identities: IdentityRow[]; addresses: AddressRow[]; planned: Set<string> } {
  const ids = new Map<string, IdentityRow>();
  const addresses: AddressRow[] = [];
  const planned = new Set<string>();
  const taken = new Set(pods.flatMap((pod) => pod.addresses));
  let next = 0;
  const plan = (): string[] => {
    for (;;) {
      next++;
      const v4 = `${pools.v4}.${(next >> 8) & 255}.${next & 255}`;
      const v6 = canonicalIp(`${pools.v6}:${(next >> 16).toString(16)}:${(next & 0xffff).toString(16)}`)!;
      const fresh = [...(next < 65_536 ? [v4] : []), v6];
      if (fresh.some((each) => taken.has(each))) continue;
      for (const each of fresh) planned.add(each);
      return fresh;
    }
  };
  for (const { namespace, name, labels, serviceAccount, namedPorts, workload, addresses: own } of pods) {
    const all = identityLabels({ namespace, serviceAccount, labels });
    const key = identityKey(all);
    const identity = ids.get(key) ?? { id: 256 + ids.size, labels: all };
    ids.set(key, identity);
    for (const address of own.length > 0 ? own : plan()) {
      addresses.push({
        address,
        identity: identity.id,
        kind: 'pod',
        namespace,
        pod: name,
        workload,
        namedPorts,
        ifindex: 0,
        endpointId: 0,
      });
    }
  }
  return { identities: [...ids.values()], addresses, planned };
}

function workloadKey({ namespace, workload }: OfflinePod): string {
  return `${namespace}/${workload.kind}/${workload.name}`;
}

/** Pods on their node's network are the node, and those that have ended are nobody. */
function podOf({ value, name, namespace }: Manifest, defaultNamespace: string): OfflinePod | undefined {
  const metadata = fields(value.metadata);
  const spec = fields(value.spec);
  const status = fields(value.status);
  if (spec.hostNetwork === true || status.phase === 'Succeeded' || status.phase === 'Failed') return undefined;
  const labels = labelsOf(metadata.labels);
  const owner = ownerOf(metadata);
  const hash = labels['pod-template-hash'];
  const workload =
    owner?.kind === 'ReplicaSet' && hash !== undefined && owner.name.endsWith(`-${hash}`)
      ? { kind: 'Deployment', name: owner.name.slice(0, -hash.length - 1) }
      : (owner ?? { kind: 'Pod', name });
  const ips = list(status.podIPs).map((each) => fields(each).ip);
  return {
    namespace: namespace || defaultNamespace,
    name,
    labels,
    ...specOf(spec),
    addresses: [...ips, ...(ips.length === 0 ? [status.podIP] : [])].flatMap((ip) =>
      typeof ip === 'string' ? (canonicalIp(ip) ?? []) : [],
    ),
    workload,
  };
}

function plannedPod({ kind, name, namespace, value }: Manifest, defaultNamespace: string): OfflinePod | undefined {
  const spec = fields(value.spec);
  const template = fields(kind === 'CronJob' ? fields(fields(spec.jobTemplate).spec).template : spec.template);
  const podSpec = fields(template.spec);
  if (podSpec.hostNetwork === true || name === '') return undefined;
  return {
    namespace: namespace || defaultNamespace,
    name,
    labels: labelsOf(fields(template.metadata).labels),
    ...specOf(podSpec),
    addresses: [],
    workload: { kind, name },
  };
}

function specOf(spec: Fields): Pick<OfflinePod, 'serviceAccount' | 'namedPorts'> {
  const sidecars = list(spec.initContainers).filter((each) => fields(each).restartPolicy === 'Always');
  const ports = [...list(spec.containers), ...sidecars].flatMap((each) => list(fields(each).ports));
  return {
    serviceAccount: typeof spec.serviceAccountName === 'string' ? spec.serviceAccountName : 'default',
    namedPorts: ports.flatMap((each): NamedPort[] => {
      const { name, protocol = 'TCP', containerPort } = fields(each);
      if (typeof name !== 'string' || typeof containerPort !== 'number') return [];
      return [{ name, protocol: protocol as PortProtocol, port: containerPort }];
    }),
  };
}

function ownerOf(metadata: Fields): Workload | undefined {
  const owners = list(metadata.ownerReferences).map(fields);
  const owner = owners.find((each) => each.controller === true) ?? owners[0];
  return owner === undefined ? undefined : { kind: String(owner.kind), name: String(owner.name) };
}

/** The labels of an object; what is no text is left out. */
export function labelsOf(given: unknown): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields(given)).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

/** The fields of what may be no object. */
export function fields(given: unknown): Fields {
  return typeof given === 'object' && given !== null && !Array.isArray(given) ? (given as Fields) : {};
}

/** The entries of what may be no list. */
export function list(given: unknown): readonly unknown[] {
  return Array.isArray(given) ? given : [];
}
