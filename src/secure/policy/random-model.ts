// Random clusters and policies for property tests: few names, so that selectors, blocks and ports meet often.
import fc from 'fast-check';
import { identityLabels, reservedIdentities, reservedIdentityRows } from '../../core/identity.ts';
import type { LabelSelector } from '../../core/labels.ts';
import type {
  AddressRow,
  IdentityRow,
  NamedPort,
  NamespaceRow,
  NetworkPolicyRow,
  PolicyPeer,
  PolicyPort,
  PolicyRule,
  PortProtocol,
  PrefixRow,
} from '../../core/rows.ts';
import type { Connection, PolicyModel } from './evaluate.ts';

const podAddresses = ['10.0.0.1', '10.0.0.2', '10.0.0.9', '10.0.1.1', '10.0.1.2', 'fd00::1', 'fd00::2', 'fd00:1::1'];
const otherAddresses = ['192.168.0.1', '192.168.0.2', 'fd01::1', '8.8.8.8', '2001:db8::1', '10.0.0.77', '10.9.0.1'];
const blocks = [
  '10.0.0.0/24',
  '10.0.0.0/30',
  '10.0.0.1/32',
  '10.0.0.0/8',
  '0.0.0.0/0',
  'fd00::/64',
  'fd00::1/128',
  '::/0',
];
const inside: Record<string, string[]> = {
  '10.0.0.0/24': ['10.0.0.0/30', '10.0.0.9/32'],
  '10.0.0.0/8': ['10.0.0.0/24', '10.0.1.1/32'],
  '0.0.0.0/0': ['10.0.0.0/8', '192.168.0.1/32'],
  'fd00::/64': ['fd00::2/128'],
};
const protocols = fc.constantFrom<PortProtocol>('TCP', 'UDP', 'SCTP');
const port = fc.constantFrom(79, 80, 81, 443, 8080, 65_535);
const portName = fc.constantFrom('http', 'dns');
const namespace = fc.constantFrom('a', 'b', 'c');
const value = fc.constantFrom('x', 'y', 'z');

const namedPort: fc.Arbitrary<NamedPort> = fc.record({ name: portName, protocol: protocols, port });

const identityCount = 8;
const identityRows: IdentityRow[] = Array.from({ length: identityCount }, (_, i) => ({
  id: 256 + i,
  labels: identityLabels({
    namespace: ['a', 'b', 'c'][i % 3]!,
    serviceAccount: 'default',
    labels: { ...(i & 1 && { app: ['x', 'y'][(i >> 1) & 1]! }), ...(i & 4 && { tier: 'z' }) },
  }),
}));

const selector: fc.Arbitrary<LabelSelector> = fc.record({
  matchLabels: fc.oneof(
    fc.constant({}),
    value.map((app) => ({ app })),
    value.map((tier) => ({ tier })),
  ),
  matchExpressions: fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    {
      weight: 1,
      arbitrary: fc.array(
        fc.oneof(
          fc.record({
            key: fc.constantFrom('app', 'tier'),
            operator: fc.constantFrom('In' as const, 'NotIn' as const),
            values: fc.array(value, { minLength: 1, maxLength: 2 }),
          }),
          fc.record({
            key: fc.constantFrom('app', 'tier'),
            operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const),
            values: fc.constant([]),
          }),
        ),
        { maxLength: 2 },
      ),
    },
  ),
});

const peer: fc.Arbitrary<PolicyPeer> = fc.oneof(
  fc.record({ kind: fc.constant('pods' as const), podSelector: selector }),
  fc.record({ kind: fc.constant('pods' as const), podSelector: selector, namespaceSelector: selector }),
  fc
    .constantFrom(...blocks)
    .chain((cidr) => fc.subarray(inside[cidr] ?? []).map((except) => ({ kind: 'block' as const, cidr, except }))),
);

const policyPort: fc.Arbitrary<PolicyPort> = fc.oneof(
  fc.record({ kind: fc.constant('all' as const), protocol: protocols }),
  fc.tuple(protocols, port).map(([protocol, first]) => ({ kind: 'range' as const, protocol, first, last: first })),
  fc
    .tuple(protocols, port, port)
    .map(([protocol, a, b]) => ({ kind: 'range' as const, protocol, first: Math.min(a, b), last: Math.max(a, b) })),
  fc.record({ kind: fc.constant('named' as const), protocol: protocols, name: portName }),
);

const rule: fc.Arbitrary<PolicyRule> = fc.record({
  peers: fc.array(peer, { maxLength: 2 }),
  ports: fc.array(policyPort, { maxLength: 2 }),
});

const policy = (name: string): fc.Arbitrary<NetworkPolicyRow> =>
  fc
    .record({
      namespace,
      staged: fc.boolean().map((staged) => staged && name !== 'p0'),
      podSelector: selector,
      isolates: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }),
      ingress: fc.array(rule, { maxLength: 2 }),
      egress: fc.array(rule, { maxLength: 2 }),
    })
    .map((row) => ({
      ...row,
      name,
      key: `${row.namespace}/${name}`,
      ingress: row.isolates.ingress ? row.ingress : [],
      egress: row.isolates.egress ? row.egress : [],
    }));

const podAddress = (address: string): fc.Arbitrary<AddressRow | undefined> =>
  fc.option(
    fc
      .record({
        identity: fc.nat(identityCount - 1).map((i) => 256 + i),
        namedPorts: fc.array(namedPort, { maxLength: 2 }),
        place: fc.constantFrom('local', 'local', 'remote'),
        pending: fc.constantFrom(undefined, undefined, undefined, true),
      })
      .map(({ identity, namedPorts, place, pending }) => {
        const number = place === 'local' ? podAddresses.indexOf(address) + 1 : 0;
        const row = { address, identity, kind: 'pod' as const, namedPorts, ifindex: number, endpointId: number };
        return pending ? { ...row, pending } : row;
      }),
    { nil: undefined, freq: 6 },
  );

const nodes: AddressRow[] = [
  {
    address: '192.168.0.1',
    identity: reservedIdentities.host,
    kind: 'host',
    namedPorts: [],
    ifindex: 0,
    endpointId: 0,
  },
  { address: 'fd01::1', identity: reservedIdentities.host, kind: 'host', namedPorts: [], ifindex: 0, endpointId: 0 },
  {
    address: '192.168.0.2',
    identity: reservedIdentities['remote-node'],
    kind: 'remote-node',
    namedPorts: [],
    ifindex: 0,
    endpointId: 0,
  },
];

const prefixes: PrefixRow[] = [
  { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
  { cidr: '10.0.0.0/16', identity: reservedIdentities.unmanaged },
  { cidr: '10.0.0.0/24', identity: reservedIdentities.health },
  { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
];

/** A cluster as one node sees it, and its policies. */
export const arbitraryModel: fc.Arbitrary<PolicyModel> = fc.record({
  identities: fc
    .subarray(identityRows, { minLength: identityCount - 1 })
    .map((rows) => [...reservedIdentityRows(), ...rows]),
  namespaces: fc
    .tuple(
      ...['a', 'b', 'c'].map((name) =>
        fc
          .option(fc.constantFrom({}, { app: 'x' }, { app: 'y' }, { tier: 'z' }), { freq: 8 })
          .map((labels): NamespaceRow | undefined =>
            labels === null ? undefined : { name, labels: labels as Record<string, string> },
          ),
      ),
    )
    .map((rows) => rows.filter((row) => row !== undefined)),
  addresses: fc
    .tuple(fc.tuple(...podAddresses.map(podAddress)), fc.subarray(nodes))
    .map(([pods, some]) => [...pods.filter((row) => row !== undefined), ...some]),
  prefixes: fc.subarray(prefixes),
  policies: fc
    .tuple(...['p0', 'p1', 'p2', 'p3'].map((name) => fc.option(policy(name), { nil: undefined, freq: 3 })))
    .map((rows) => rows.filter((row) => row !== undefined)),
});

const address = fc.constantFrom(...podAddresses, ...podAddresses, ...otherAddresses);

/** Connections between addresses that such clusters know, and some that they do not. */
export const arbitraryConnections: fc.Arbitrary<Connection[]> = fc.array(
  fc
    .tuple(address, address, fc.constantFrom(6, 6, 17, 132, 1, 58), fc.oneof(port, fc.constantFrom(78, 100, 1024)))
    .filter(([source, destination]) => source.includes(':') === destination.includes(':'))
    .map(([source, destination, protocol, number]) => ({
      source,
      destination,
      protocol,
      port: protocol === 1 || protocol === 58 ? 0 : number,
    })),
  { minLength: 20, maxLength: 40 },
);
