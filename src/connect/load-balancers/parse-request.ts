// What a Service asks of the pools: whether at all, for which families, for which addresses, shared with whom.
import { canonicalIp } from '../../core/ip.ts';

/** A Service of type LoadBalancer, or one that still has something of the pools. The primary key is `key`. */
export interface AddressRequest {
  /** "namespace/name" */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly version: string;
  /** ISO time; the older Service keeps an address that two claim. */
  readonly createdAt: string;
  readonly labels: Readonly<Record<string, string>>;
  /** It is to have addresses of pools: of the type LoadBalancer, and of no class or of ours. */
  readonly wanted: boolean;
  /** IP families in the Service's order. */
  readonly families: readonly (4 | 6)[];
  /** All families are needed; else one is enough. */
  readonly needsAll: boolean;
  /** Canonical; empty: any. */
  readonly requested: readonly string[];
  readonly sharing?: SharingTerms;
  readonly ports: readonly string[];
  /** In its status. */
  readonly assigned: readonly string[];
  /** The status says that the addresses are the pools'. */
  readonly ours: boolean;
  readonly problems: readonly string[];
}

/** On which terms a Service shares its address. */
export interface SharingTerms {
  readonly key: string;
  /** Namespaces beside its own whose services may have the address, too; `*`: all. */
  readonly namespaces: readonly string[];
  /** Services that share must be equal in this: with the external traffic policy Local, traffic must find the same pods. */
  readonly traffic: string;
}

/** A condition as Kubernetes writes it. */
export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** The fields of a Service that are read. */
export interface RequestObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly type?: string;
    readonly loadBalancerClass?: string;
    readonly loadBalancerIP?: string;
    readonly ipFamilies?: readonly string[];
    readonly ipFamilyPolicy?: string;
    readonly externalTrafficPolicy?: string;
    readonly selector?: Readonly<Record<string, string>>;
    readonly ports?: readonly { readonly port: number; readonly protocol?: string }[];
  };
  readonly status?: {
    readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string; readonly hostname?: string }[] };
    readonly conditions?: readonly Condition[];
  };
}

/** The condition by which a Service's status tells how its request went. */
export const requestCondition = 'cilium.io/IPAMRequestSatisfied';

/** Classes of load balancers that are served; a Service without a class is, too. */
const ourClasses = ['io.cilium/l2-announcer', 'weir.dev/l2'];

const annotations = {
  addresses: ['lbipam.cilium.io/ips', 'io.cilium/lb-ipam-ips'],
  sharingKey: ['lbipam.cilium.io/sharing-key', 'io.cilium/lb-ipam-sharing-key'],
  sharingNamespaces: ['lbipam.cilium.io/sharing-cross-namespace', 'io.cilium/lb-ipam-sharing-cross-namespace'],
} as const;

/** The row of a Service; undefined for one that wants nothing and has nothing. */
export function parseRequest(object: RequestObject): AddressRequest | undefined {
  const { metadata, spec = {}, status = {} } = object;
  const ours = (status.conditions ?? []).some((each) => each.type === requestCondition);
  const wanted =
    spec.type === 'LoadBalancer' &&
    metadata.deletionTimestamp === undefined &&
    (spec.loadBalancerClass === undefined || ourClasses.includes(spec.loadBalancerClass));
  if (!wanted && !ours) return undefined;
  const problems: string[] = [];
  const named = (names: readonly string[]) =>
    names.map((name) => metadata.annotations?.[name]?.trim()).find((text) => text !== undefined && text !== '');
  const list = (text: string | undefined) =>
    (text ?? '')
      .split(',')
      .map((each) => each.trim())
      .filter((each) => each !== '');
  const asked = list(named(annotations.addresses));
  const requested = (asked.length > 0 ? asked : list(spec.loadBalancerIP)).flatMap((text) => {
    const address = text.includes('/') ? undefined : canonicalIp(text);
    if (address !== undefined) return address;
    problems.push(`${JSON.stringify(text)} is asked for and is not an address`);
    return [];
  });
  const key = named(annotations.sharingKey);
  const namespace = metadata.namespace ?? 'default';
  return {
    key: `${namespace}/${metadata.name}`,
    namespace,
    name: metadata.name,
    uid: metadata.uid ?? '',
    version: metadata.resourceVersion ?? '',
    createdAt: metadata.creationTimestamp ?? '',
    labels: metadata.labels ?? {},
    wanted,
    families: (spec.ipFamilies ?? ['IPv4']).map((family) => (family === 'IPv6' ? 6 : 4)),
    needsAll: spec.ipFamilyPolicy !== 'PreferDualStack',
    requested: [...new Set(requested)],
    ...(key === undefined
      ? {}
      : {
          sharing: {
            key,
            namespaces: list(named(annotations.sharingNamespaces)),
            traffic: spec.externalTrafficPolicy === 'Local' ? `Local ${selectorText(spec.selector)}` : 'Cluster',
          },
        }),
    ports: (spec.ports ?? []).map((port) => `${port.port}/${port.protocol ?? 'TCP'}`),
    assigned: (status.loadBalancer?.ingress ?? []).flatMap((each) => (each.ip && canonicalIp(each.ip)) || []),
    ours,
    problems,
  };
}

function selectorText(selector: Readonly<Record<string, string>> = {}): string {
  return JSON.stringify(Object.entries(selector).sort(([a], [b]) => (a < b ? -1 : 1)));
}
