// Kubernetes Services and EndpointSlices as rows. The API server has checked their form; what it lets through and must not
// be believed (endpoints on loopback, link-local and metadata addresses) is left out here and said.
import { createInterned } from '../../core/interned.ts';
import { canonicalIp, parseAddress } from '../../core/ip.ts';
import type {
  EndpointFacts,
  LbAlgorithm,
  PortProtocol,
  ServicePort,
  ServiceRow,
  ServiceSliceRow,
} from '../../core/rows.ts';

/** The fields of a Service that are read. */
export interface ServiceObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly creationTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly type?: string;
    readonly clusterIP?: string;
    readonly clusterIPs?: readonly string[];
    readonly externalIPs?: readonly string[];
    readonly ports?: readonly { name?: string; protocol?: string; port: number; nodePort?: number }[];
    readonly sessionAffinity?: string;
    readonly sessionAffinityConfig?: { readonly clientIP?: { readonly timeoutSeconds?: number } };
    readonly internalTrafficPolicy?: string;
    readonly externalTrafficPolicy?: string;
    readonly healthCheckNodePort?: number;
    readonly loadBalancerSourceRanges?: readonly string[];
  };
  readonly status?: { readonly loadBalancer?: { readonly ingress?: readonly { ip?: string; ipMode?: string }[] } };
}

/** The fields of an EndpointSlice that are read. */
export interface EndpointSliceObject {
  readonly metadata: ServiceObject['metadata'];
  readonly addressType?: string;
  readonly ports?: readonly { name?: string; protocol?: string; port?: number }[] | null;
  readonly endpoints?:
    | readonly {
        addresses?: readonly string[];
        conditions?: { ready?: boolean | null; serving?: boolean | null; terminating?: boolean | null };
        nodeName?: string | null;
        hints?: { forZones?: readonly { name: string }[]; forNodes?: readonly { name: string }[] } | null;
      }[]
    | null;
}

// There are many rows: what they have in common is kept once.
const none: readonly never[] = [];
/** Without the room that a list keeps for growing. */
const tight = <T>(list: readonly T[]): readonly T[] => (list.length === 0 ? none : [...list]);
const endpointFacts = createInterned<EndpointFacts>(50_000);
const defaultAffinitySeconds = 10_800;
const maxWeight = 256;
/** Labels by which a Service says that somebody else serves it, or nobody. */
const proxyNameLabel = 'service.kubernetes.io/service-proxy-name';
const headlessLabel = 'service.kubernetes.io/headless';
const serviceNameLabel = 'kubernetes.io/service-name';

/** The row of a Service; undefined for one without frontends of ours. */
export function parseService(object: ServiceObject): ServiceRow | undefined {
  const { metadata, spec = {} } = object;
  const labels = metadata.labels ?? {};
  const clusterIp = spec.clusterIP ?? '';
  if (spec.type === 'ExternalName' || clusterIp === 'None' || clusterIp === '') return undefined;
  if (Object.hasOwn(labels, proxyNameLabel) || Object.hasOwn(labels, headlessLabel)) return undefined;
  const problems: string[] = [];
  const addresses = (list: readonly string[] | undefined, what: string) =>
    (list ?? []).flatMap((text) => {
      const reason = unusable(text);
      if (reason === undefined) return canonicalIp(text) ?? [];
      problems.push(`${what} ${text} is ignored: ${reason}`);
      return [];
    });
  const type = spec.type === 'NodePort' || spec.type === 'LoadBalancer' ? spec.type : 'ClusterIP';
  const vips = (object.status?.loadBalancer?.ingress ?? []).flatMap((each) =>
    each.ip === undefined || each.ipMode === 'Proxy' ? [] : [each.ip],
  );
  return {
    key: `${metadata.namespace ?? 'default'}/${metadata.name}`,
    namespace: metadata.namespace ?? 'default',
    name: metadata.name,
    uid: metadata.uid ?? '',
    createdAt: metadata.creationTimestamp ?? '',
    type,
    clusterIps: tight((spec.clusterIPs?.length ? spec.clusterIPs : [clusterIp]).flatMap((ip) => canonicalIp(ip) ?? [])),
    externalIps: addresses(spec.externalIPs, 'external IP'),
    loadBalancerIps: type === 'LoadBalancer' ? tight(addresses(vips, 'load balancer address')) : none,
    ports: tight((spec.ports ?? []).flatMap((port) => servicePort(port, problems))),
    affinitySeconds:
      spec.sessionAffinity === 'ClientIP'
        ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? defaultAffinitySeconds)
        : undefined,
    internalLocal: spec.internalTrafficPolicy === 'Local',
    externalLocal: type !== 'ClusterIP' && spec.externalTrafficPolicy === 'Local',
    healthCheckNodePort: spec.healthCheckNodePort || undefined,
    sourceRanges: type === 'LoadBalancer' ? sourceRanges(spec.loadBalancerSourceRanges, problems) : undefined,
    algorithm: algorithmOf(metadata.annotations?.['weir.dev/lb-algorithm'], problems),
    problems: tight(problems),
  };
}

/** The row of an EndpointSlice; undefined for one that belongs to no Service, or is of names. */
export function parseServiceSlice(object: EndpointSliceObject): ServiceSliceRow | undefined {
  const { metadata } = object;
  const service = metadata.labels?.[serviceNameLabel];
  if (service === undefined || service === '' || object.addressType === 'FQDN') return undefined;
  const namespace = metadata.namespace ?? 'default';
  const problems: string[] = [];
  const family = object.addressType === 'IPv6' ? 6 : 4;
  const weight = weightOf(metadata.annotations?.['weir.dev/weight'], problems);
  const addresses: string[] = [];
  const facts: EndpointFacts[] = [];
  for (const endpoint of object.endpoints ?? []) {
    const text = endpoint.addresses?.[0];
    if (text === undefined) continue;
    const reason = unusable(text, family);
    if (reason !== undefined) {
      problems.push(`endpoint ${text} is ignored: ${reason}`);
      continue;
    }
    addresses.push(canonicalIp(text)!);
    facts.push(factsOf(endpoint, weight));
  }
  return {
    key: `${namespace}/${metadata.name}`,
    service: `${namespace}/${service}`,
    namespace,
    ports: tight(
      (object.ports ?? []).flatMap((port) =>
        port.port === undefined || !isProtocol(port.protocol ?? 'TCP')
          ? []
          : [{ name: port.name ?? '', protocol: (port.protocol ?? 'TCP') as PortProtocol, port: port.port }],
      ),
    ),
    addresses: tight(addresses),
    facts: tight(facts),
    problems: tight(problems),
  };
}

function factsOf(endpoint: NonNullable<EndpointSliceObject['endpoints']>[number], weight: number): EndpointFacts {
  const ready = endpoint.conditions?.ready ?? true;
  const serving = endpoint.conditions?.serving ?? ready;
  const terminating = endpoint.conditions?.terminating ?? false;
  const node = endpoint.nodeName ?? undefined;
  const forZones = endpoint.hints?.forZones?.map((zone) => zone.name);
  const forNodes = endpoint.hints?.forNodes?.map((each) => each.name);
  const hints = forZones === undefined && forNodes === undefined ? undefined : { forZones, forNodes };
  const key = `${ready} ${serving} ${terminating} ${weight} ${node} ${hints && JSON.stringify(hints)}`;
  return endpointFacts(key, () => ({ ready, serving, terminating, node, weight, ...hints }));
}

function servicePort(
  port: { name?: string; protocol?: string; port: number; nodePort?: number },
  problems: string[],
): ServicePort[] {
  const protocol = port.protocol ?? 'TCP';
  if (!isProtocol(protocol)) {
    problems.push(`port ${port.port}/${protocol} is ignored: the protocol is none of TCP, UDP and SCTP`);
    return [];
  }
  return [{ name: port.name ?? '', protocol, port: port.port, nodePort: port.nodePort || undefined }];
}

const isProtocol = (text: string): text is PortProtocol => text === 'TCP' || text === 'UDP' || text === 'SCTP';

/** Where none of the ranges can be read nobody is let in: who wrote them wanted to keep somebody out. */
function sourceRanges(list: readonly string[] | undefined, problems: string[]): string[] | undefined {
  if (list === undefined || list.length === 0) return undefined;
  return list.flatMap((text) => {
    const cidr = canonicalIp(text.trim());
    if (cidr?.includes('/')) return cidr;
    problems.push(`source range ${text} is ignored: not a block`);
    return [];
  });
}

function algorithmOf(text: string | undefined, problems: string[]): LbAlgorithm | undefined {
  if (text === undefined || text === 'maglev' || text === 'random') return text;
  problems.push(`annotation weir.dev/lb-algorithm: ${JSON.stringify(text)} is neither maglev nor random`);
  return undefined;
}

function weightOf(text: string | undefined, problems: string[]): number {
  if (text === undefined) return 1;
  const weight = Number(text);
  if (/^\d{1,3}$/.test(text) && weight <= maxWeight) return weight;
  problems.push(`annotation weir.dev/weight: ${JSON.stringify(text)} is not a number from 0 to ${maxWeight}`);
  return 1;
}

/** Why an address cannot be a frontend or a backend: it means something else on every host, or nothing. */
function unusable(text: string, wanted?: 4 | 6): string | undefined {
  const parsed = parseAddress(text);
  if (!parsed.ok) return parsed.reason;
  const { family, bytes } = parsed.value;
  if (wanted !== undefined && family !== wanted) return 'it is not of the family that the slice says';
  const first = bytes[0]!;
  if (bytes.every((byte) => byte === 0)) return 'the unspecified address';
  if (family === 4) {
    if (first === 127) return 'a loopback address';
    if (first === 0) return 'an address of "this network"';
    if (first === 169 && bytes[1] === 254) return 'a link-local address (cloud metadata among them)';
    if (first >= 224) return 'a multicast or reserved address';
    return undefined;
  }
  if (bytes[15] === 1 && bytes.subarray(0, 15).every((byte) => byte === 0)) return 'the loopback address';
  if (first === 0xfe && (bytes[1]! & 0xc0) === 0x80) return 'a link-local address';
  if (first === 0xff) return 'a multicast address';
  if (canonicalIp(text) === 'fd00:ec2::254') return 'an address of cloud metadata';
  return undefined;
}
