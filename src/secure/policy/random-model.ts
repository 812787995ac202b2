// Random clusters and policies for property tests: few names, so that selectors, blocks and ports meet often.
import fc from 'fast-check';
import {
  identityLabels,
  metaLabels,
  namespaceLabel,
  reservedIdentities,
  reservedIdentityRows,
} from '../../core/identity.ts';
import type { LabelSelector } from '../../core/labels.ts';
import {
  type AddressRow,
  type Direction,
  type IdentityRow,
  type NamedPort,
  type NamespaceRow,
  type PolicyKind,
  type PolicyPeer,
  type PolicyPort,
  type PolicyRow,
  type PolicyRule,
  type PolicyTier,
  type PortProtocol,
  type PrefixRow,
  policyKey,
} from '../../core/rows.ts';
import { essentialPolicy } from './essential-traffic.ts';
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
const icmpType = fc.constantFrom(0, 3, 8, 128);
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

/** Selectors of endpoints speak of pods' labels, of what Weir adds, and of namespaces' labels. */
const endpointSelector: fc.Arbitrary<LabelSelector> = fc
  .tuple(selector, fc.option(namespace, { nil: undefined, freq: 2 }), fc.option(selector, { nil: undefined, freq: 4 }))
  .map(([own, inNamespace, ofNamespace]) => ({
    matchLabels: {
      ...own.matchLabels,
      ...(inNamespace !== undefined && { [metaLabels.namespace]: inNamespace }),
      ...Object.fromEntries(
        Object.entries(ofNamespace?.matchLabels ?? {}).map(([key, of]) => [namespaceLabel(key), of]),
      ),
    },
    matchExpressions: [
      ...own.matchExpressions,
      ...(ofNamespace?.matchExpressions ?? []).map((each) => ({ ...each, key: namespaceLabel(each.key) })),
    ],
  }));

const reserved = Object.values(reservedIdentities);

const peer: fc.Arbitrary<PolicyPeer> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('endpoints' as const), selector: endpointSelector }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('reserved' as const),
      identities: fc.uniqueArray(fc.constantFrom(...reserved), { maxLength: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(...blocks).chain((cidr) =>
      fc.record({
        kind: fc.constant('block' as const),
        cidr: fc.constant(cidr),
        except: fc.subarray(inside[cidr] ?? []),
        reach: fc.constantFrom('any' as const, 'not-pods' as const, 'outside' as const),
      }),
    ),
  },
);

const protocolNumber = fc.constantFrom(6, 6, 17, 132);
const policyPort: fc.Arbitrary<PolicyPort> = fc.oneof(
  fc.record({ kind: fc.constant('all' as const), protocol: fc.constantFrom(6, 17, 132, 1, 47) }),
  fc.tuple(protocolNumber, port).map(([protocol, first]) => ({ kind: 'range' as const, protocol, first, last: first })),
  fc
    .tuple(protocolNumber, port, port)
    .map(([protocol, a, b]) => ({ kind: 'range' as const, protocol, first: Math.min(a, b), last: Math.max(a, b) })),
  fc
    .tuple(fc.constantFrom(1, 58), icmpType)
    .map(([protocol, type]) => ({ kind: 'range' as const, protocol, first: type, last: type })),
  fc.record({ kind: fc.constant('named' as const), protocol: protocols, name: portName }),
);

type RuleBody = Pick<PolicyRule, 'action' | 'peers' | 'ports'>;
const some = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(fc.array(arbitrary, { maxLength: 2 }), { nil: undefined });
const ruleBody = (...actions: PolicyRule['action'][]): fc.Arbitrary<RuleBody> =>
  fc
    .record({ action: fc.constantFrom(...actions), peers: some(peer), ports: some(policyPort) })
    .map(({ action, peers, ports }) => ({ action, ...(peers && { peers }), ...(ports && { ports }) }));

/** Puts rules in their lists, as the API has them: denials of Cilium's policies count for themselves. */
function placed(direction: Direction, bodies: readonly RuleBody[], kind: PolicyKind): PolicyRule[] {
  const denies = kind.startsWith('Cilium');
  const counts = { allow: 0, deny: 0 };
  return bodies.map((given, i) => {
    // As closed policies deny.
    const spares = direction === 'ingress' && given.action === 'deny' && given.peers === undefined && i % 2 === 0;
    const body = {
      ...given,
      ...(spares && { sparesOwnNode: i === 0 ? ('always' as const) : ('unless-api-server' as const) }),
    };
    if (!denies) return { ...body, list: direction, index: i };
    const which = body.action === 'deny' ? ('deny' as const) : ('allow' as const);
    return { ...body, list: which === 'deny' ? (`${direction}Deny` as const) : direction, index: counts[which]++ };
  });
}

const policy = (name: string): fc.Arbitrary<PolicyRow> =>
  fc
    .constantFrom<PolicyKind>(
      'NetworkPolicy',
      'NetworkPolicy',
      'CiliumNetworkPolicy',
      'CiliumClusterwideNetworkPolicy',
      'ClusterNetworkPolicy',
    )
    .chain((kind) => {
      const cluster = kind === 'ClusterNetworkPolicy';
      const rules = fc.array(
        cluster
          ? ruleBody('allow', 'deny', 'pass')
          : kind === 'NetworkPolicy'
            ? ruleBody('allow')
            : ruleBody('allow', 'allow', 'deny'),
        { maxLength: 3 },
      );
      return fc
        .record({
          namespace,
          staged: fc.boolean().map((staged) => staged && name !== 'p0'),
          selector: endpointSelector,
          ofNode: fc.nat(2).map((number) => number === 0 && kind === 'CiliumClusterwideNetworkPolicy'),
          isolates: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }),
          ingress: rules,
          egress: rules,
          priority: fc.nat(1),
          tier: fc.constantFrom<PolicyTier>('admin', 'baseline'),
          log: fc.constantFrom(undefined, undefined, 'audit'),
        })
        .map((row): PolicyRow => {
          const namespaced = kind === 'NetworkPolicy' || kind === 'CiliumNetworkPolicy';
          const inNamespace = namespaced ? row.namespace : '';
          // A NetworkPolicy has rules only where it isolates.
          const bodies = (direction: Direction) =>
            kind === 'NetworkPolicy' && !row.isolates[direction] ? [] : row[direction];
          return {
            key: policyKey(kind, inNamespace, name),
            kind,
            namespace: inNamespace,
            name,
            tier: cluster ? row.tier : 'normal',
            priority: cluster ? row.priority : 0,
            staged: row.staged,
            subject: row.ofNode ? { kind: 'node' } : { kind: 'endpoints', selector: row.selector },
            isolates: cluster ? { ingress: false, egress: false } : row.isolates,
            ingress: placed('ingress', bodies('ingress'), kind),
            egress: placed('egress', bodies('egress'), kind),
            ...(row.log !== undefined && { log: row.log }),
          };
        });
    });

/** What a node cannot do without: the table itself, or rules as the others have them. */
const essential: fc.Arbitrary<PolicyRow> = fc.oneof(
  fc.boolean().map((controls) =>
    essentialPolicy({
      nodeLabels: controls ? { 'node-role.kubernetes.io/control-plane': '' } : {},
      podCidrs: ['10.0.0.0/24', 'fd00::/64'],
      apiServers: ['8.8.8.8'],
    }),
  ),
  fc.tuple(...(['ingress', 'egress'] as const).map(() => fc.array(ruleBody('allow'), { maxLength: 3 }))).map(
    ([ingress, egress]): PolicyRow => ({
      ...essentialPolicy({ nodeLabels: {}, podCidrs: [] }),
      ingress: placed('ingress', ingress!, 'Builtin'),
      egress: placed('egress', egress!, 'Builtin'),
    }),
  ),
);

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
    apiServer: true,
  },
  {
    address: '8.8.8.8',
    identity: reservedIdentities['kube-apiserver'],
    kind: 'kube-apiserver',
    namedPorts: [],
    ifindex: 0,
    endpointId: 0,
  },
];

/** A node always has these: whatever else is not known is in them. */
const worlds: PrefixRow[] = [
  { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
  { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
];

const prefixes: PrefixRow[] = [
  { cidr: '10.0.0.0/16', identity: reservedIdentities.unmanaged },
  { cidr: '10.0.0.0/24', identity: reservedIdentities.health },
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
  prefixes: fc.subarray(prefixes).map((some) => [...worlds, ...some]),
  policies: fc
    .tuple(
      ...['p0', 'p1', 'p2', 'p3'].map((name) => fc.option(policy(name), { nil: undefined, freq: 3 })),
      fc.option(essential, { nil: undefined }),
    )
    .map((rows) => rows.filter((row) => row !== undefined)),
});

const address = fc.constantFrom(...podAddresses, ...podAddresses, ...otherAddresses);

/** Connections between addresses that such clusters know, and some that they do not. */
export const arbitraryConnections: fc.Arbitrary<Connection[]> = fc.array(
  fc
    .tuple(
      fc.tuple(address, address),
      fc.constantFrom(6, 6, 17, 132, 1, 58, 47),
      fc.oneof(port, fc.constantFrom(78, 100, 1024, 68, 6443, 10_250)),
      fc.oneof(icmpType, fc.constantFrom(135)),
    )
    .filter(([[source, destination]]) => source.includes(':') === destination.includes(':'))
    .map(([[source, destination], protocol, number, type]) => ({
      source,
      destination,
      protocol,
      port: protocol === 1 || protocol === 58 ? type : protocol === 47 ? 0 : number,
    })),
  { minLength: 20, maxLength: 40 },
);
