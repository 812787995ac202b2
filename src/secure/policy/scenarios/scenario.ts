// The form of a policy scenario: pods, policies as users write them, and what must come of which connection. The same
// scenarios run on the evaluator, on compiled rows and on real packets, so nothing here knows addresses.
import { identityLabels, reservedIdentities, reservedIdentityRows } from '../../../core/identity.ts';
import { formatCidr, maskAddress, parseAddress } from '../../../core/ip.ts';
import type { LabelMap } from '../../../core/labels.ts';
import {
  type AddressRow,
  type IdentityRow,
  type NamedPort,
  type PortProtocol,
  protocolNumbers,
} from '../../../core/rows.ts';
import type { Connection, PolicyModel } from '../evaluate.ts';
import { readPolicies } from '../read-policies.ts';

/** A pod of a scenario. Pods listen on every port that is probed. */
export interface ScenarioPod {
  readonly labels: LabelMap;
  readonly ports?: readonly NamedPort[];
  /** Pods are on node 1 unless they say otherwise. */
  readonly node?: number;
}

/**
 * One end of a probe: `namespace/pod`, or `host` (node 1 itself), `remote-node` (node 2 itself) or `world` (outside).
 * Policies name these addresses in blocks as `@namespace/pod` (that address only) or `@namespace/pod-8` (the block of
 * 2^8 addresses around it).
 */
export type End = string;

/** A connection and what must come of it. */
export interface Probe {
  readonly from: End;
  readonly to: End;
  readonly protocol?: PortProtocol | 'ICMP';
  readonly port?: number;
  readonly expect: 'allowed' | 'egress denied' | 'ingress denied';
}

/** What a set of policies means, by example. */
export interface Scenario {
  readonly name: string;
  readonly namespaces: Readonly<Record<string, LabelMap>>;
  readonly pods: Readonly<Record<End, ScenarioPod>>;
  /** The `metadata` of each needs a name and namespace; apiVersion and kind may be left out. */
  readonly policies: readonly Readonly<Record<string, unknown>>[];
  readonly probes: readonly Probe[];
}

/** Where the ends of a scenario are. */
export type Addresses = (end: End) => string;

/** Addresses for when there are no real ones: pods in 10.244.<node>.0/24 or fd00:10:244:<node>::/64. */
export function plannedAddresses(scenario: Pick<Scenario, 'pods'>, family: 4 | 6): Addresses {
  const names = Object.keys(scenario.pods);
  return (end) => {
    if (end === 'host') return family === 4 ? '192.168.7.1' : 'fd00:7::1';
    if (end === 'remote-node') return family === 4 ? '192.168.7.2' : 'fd00:7::2';
    if (end === 'world') return family === 4 ? '203.0.113.9' : '2001:db8::9';
    const number = names.indexOf(end) + 2;
    const node = scenario.pods[end]?.node ?? 1;
    if (number < 2) throw new Error(`the scenario has no pod ${end}`);
    return family === 4 ? `10.244.${node}.${number}` : `fd00:10:244:${node}::${number.toString(16)}`;
  };
}

/** The policies with their `@` blocks filled in. */
export function scenarioManifests(
  scenario: Pick<Scenario, 'policies'>,
  addresses: Addresses,
): Record<string, unknown>[] {
  const fill = (value: unknown): unknown => {
    if (typeof value === 'string' && value.startsWith('@')) return fillBlock(value.slice(1), addresses);
    if (Array.isArray(value)) return value.map(fill);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner)]));
  };
  const head = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' };
  return scenario.policies.map((policy) => ({ ...head, ...(fill(policy) as Record<string, unknown>) }));
}

function fillBlock(text: string, addresses: Addresses): string {
  const [, end = text, hostBits = '0'] = /^(.*?)(?:-(\d+))?$/.exec(text) ?? [];
  const parsed = parseAddress(addresses(end));
  if (!parsed.ok) throw new Error(parsed.reason);
  return formatCidr(maskAddress(parsed.value, parsed.value.bytes.length * 8 - Number(hostBits)));
}

/** The tables that a node would have; pods of `localNode` are its endpoints. */
export function scenarioModel(
  scenario: Omit<Scenario, 'name' | 'probes'>,
  addresses: Addresses,
  localNode = 1,
): PolicyModel {
  const identities: IdentityRow[] = reservedIdentityRows();
  const rows: AddressRow[] = [
    { address: addresses('host'), identity: reservedIdentities.host, kind: 'host', ...nowhere },
    { address: addresses('remote-node'), identity: reservedIdentities['remote-node'], kind: 'remote-node', ...nowhere },
  ];
  for (const [i, [end, pod]] of Object.entries(scenario.pods).entries()) {
    const [namespace = '', name = ''] = end.split('/');
    const labels = identityLabels({ namespace, serviceAccount: 'default', labels: pod.labels });
    let identity = identities.find((row) => row.labels.join() === labels.join())?.id;
    if (identity === undefined) {
      identity = 256 + identities.length;
      identities.push({ id: identity, labels });
    }
    const local = (pod.node ?? 1) === localNode ? i + 1 : 0;
    const place = { namedPorts: pod.ports ?? [], ifindex: local && local + 100, endpointId: local };
    rows.push({ address: addresses(end), identity, kind: 'pod', namespace, pod: name, ...place });
  }
  return {
    identities,
    namespaces: Object.entries(scenario.namespaces).map(([name, labels]) => ({ name, labels })),
    addresses: rows,
    prefixes: [
      { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
      { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
      { cidr: '10.244.0.0/16', identity: reservedIdentities.unmanaged },
      { cidr: 'fd00:10:244::/48', identity: reservedIdentities.unmanaged },
    ],
    policies: readPolicies(scenarioManifests(scenario, addresses)),
  };
}

const nowhere = { namedPorts: [], ifindex: 0, endpointId: 0 };

/** The connection that a probe makes. */
export function probeConnection(probe: Omit<Probe, 'expect'>, addresses: Addresses): Connection {
  const source = addresses(probe.from);
  const icmp = source.includes(':') ? 58 : 1;
  const protocol = probe.protocol === 'ICMP' ? icmp : protocolNumbers[probe.protocol ?? 'TCP'];
  return {
    source,
    destination: addresses(probe.to),
    protocol,
    port: probe.protocol === 'ICMP' ? (icmp === 1 ? 8 : 128) : (probe.port ?? 80),
  };
}

/** A probe in words, for names of tests. */
export function describeProbe(probe: Omit<Probe, 'expect'>): string {
  const what = probe.protocol === 'ICMP' ? 'ICMP' : `${probe.protocol ?? 'TCP'} ${probe.port ?? 80}`;
  return `${probe.from} to ${probe.to} ${what}`;
}
