// What a tenant may ask of everybody's nodes: over a limit his policy is closed, and others pay nothing for it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type {
  CidrGroupRow,
  NamespaceRow,
  NodeRow,
  PolicyObjectRow,
  PolicyRow,
  PolicyServiceRow,
} from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createPolicyCompiler } from './compile.ts';
import { parsePolicy } from './parse-policy.ts';
import { namespaceLimits, overNamespaceLimit, policyLimits } from './policy-limits.ts';
import { readPolicies } from './read-policies.ts';
import { resolvePolicies } from './resolve-policies.ts';
import { emptyContext, resolvePolicy } from './resolve-policy.ts';

const many = <T>(count: number, of: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => of(i));
const cilium = (spec: object, name = 'hostile', namespace = 'evil') => ({
  apiVersion: 'cilium.io/v2',
  kind: 'CiliumNetworkPolicy',
  metadata: { name, namespace, uid: name, generation: 3, creationTimestamp: '2026-01-01T00:00:00Z' },
  spec: { endpointSelector: {}, ...spec },
});
const block = (i: number) => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}/32`;

/** What no tenant should get away with, and the limit that each meets. */
const hostile: readonly (readonly [string, object, RegExp])[] = [
  [
    '250 rules of 40 lists of 40 ports',
    {
      ingress: many(250, (rule) => ({
        toPorts: many(40, (list) => ({
          ports: many(40, (i) => ({ port: String(1 + ((rule * 1600 + list * 40 + i) % 65_535)), protocol: 'TCP' })),
        })),
      })),
    },
    /has 400000 prefixes of ports; 2048 are allowed for one policy: join ports into ranges that/,
  ],
  [
    'ranges that begin and end badly',
    {
      ingress: many(200, (i) => ({
        toPorts: [{ ports: [{ port: String(1 + i), endPort: 65_534, protocol: 'ANY' }] }],
      })),
    },
    /prefixes of ports; 2048 are allowed/,
  ],
  ['many rules', { egress: many(1_001, () => ({ toEntities: ['world'] })) }, /has 1001 rules; 1000 are allowed/],
  ['many blocks', { egress: [{ toCIDR: many(5_001, block) }] }, /has 5001 blocks; 5000 are allowed/],
  [
    'many exceptions',
    { egress: [{ toCIDRSet: [{ cidr: '10.0.0.0/8', except: many(5_001, block) }] }] },
    /has 5002 blocks; 5000 are allowed/,
  ],
  [
    'huge selectors',
    {
      ingress: [
        {
          fromEndpoints: many(11, () => ({
            matchExpressions: [{ key: 'app', operator: 'NotIn', values: many(2_000, (i) => `v${i}`) }],
          })),
        },
      ],
    },
    /has 22011 labels and values in selectors; 20000 are allowed/,
  ],
];

for (const [what, spec, problem] of hostile) {
  test(`parsePolicy() closes a policy with ${what}, and says which limit and what to do`, () => {
    const { row, problems } = parsePolicy(cilium(spec))!;
    assert.match(problems.join(), problem);
    assert.equal(row!.error, problems[0]);
    assert.deepEqual(row!.specs[0]!.isolates, { ingress: true, egress: true });
    assert.deepEqual([row!.specs[0]!.ingress, row!.specs[0]!.egress], [[], []]);
    assert.deepEqual([row!.generation, row!.created], [3, '2026-01-01T00:00:00Z']);
  });
}

test('parsePolicy() counts specs without rules too', () => {
  const { spec: _, ...object } = cilium({});
  const specs = many(1_001, () => ({ endpointSelector: {}, ingress: [] }));
  assert.match(parsePolicy({ ...object, specs })!.row!.error ?? '', /has 1001 rules; 1000 are allowed/);
  assert.deepEqual(parsePolicy({ ...object, specs: specs.slice(1) })!.problems, []);
});

test('parsePolicy() closes a policy that denies in its tier, and denies everybody where it denied any', () => {
  const egressDeny = [{ toEntities: ['host'] }, { toCIDR: many(5_001, block) }];
  const [normal] = parsePolicy(cilium({ egressDeny, ingress: [{}] }))!.row!.specs;
  assert.deepEqual(normal!.egress, [{ index: 0, list: 'egressDeny', action: 'deny' }]);
  assert.deepEqual(normal!.ingress, []);
  const networks = (rule: number) => [{ networks: many(2_500, (i) => block(rule * 2_500 + i)) }];
  const [admin] = parsePolicy({
    kind: 'ClusterNetworkPolicy',
    metadata: { name: 'p' },
    spec: {
      tier: 'Admin',
      priority: 7,
      subject: { namespaces: {} },
      egress: [
        { action: 'Accept', to: [{ pods: { podSelector: {} } }] },
        ...many(24, (i) => ({ action: 'Deny', to: networks(i) })),
      ],
    },
  })!.row!.specs;
  assert.deepEqual([admin!.tier, admin!.priority, admin!.isolates], ['admin', 7, { ingress: true, egress: true }]);
  assert.deepEqual([admin!.ingress, admin!.egress], [[], [{ index: 1, list: 'egress', action: 'deny' }]]);
});

test('parsePolicy() spares the own node of pods where the closed policy did not deny it, and nowhere else', () => {
  const over = { egress: [{ toCIDR: many(5_001, block) }] };
  const spared = (ingressDeny: object[], more: object = over) =>
    parsePolicy(cilium({ ingressDeny, ...more }))!.row!.specs[0]!.ingress.map((rule) => rule.sparesOwnNode);
  for (const peers of [
    { fromEndpoints: [{ matchLabels: { app: 'a' } }] },
    { fromEntities: ['remote-node'] },
    { fromCIDR: ['192.0.2.0/24'] },
    { fromCIDRSet: [{ cidrGroupRef: 'feed' }] },
  ])
    assert.deepEqual(spared([peers]), ['always'], JSON.stringify(peers));
  // Both match the node if the API server answers there.
  for (const fromEntities of [['world'], ['kube-apiserver']])
    assert.deepEqual(spared([{ fromEntities }]), ['unless-api-server'], fromEntities.join());
  for (const peers of [
    { fromEntities: ['all'] },
    { fromEntities: ['host'] },
    { fromEntities: ['cluster'] },
    { fromNodes: [{}] },
    { toPorts: [{ ports: [{ port: '22' }] }] },
  ])
    assert.deepEqual(spared([{ fromEntities: ['world'] }, peers]), [undefined], JSON.stringify(peers));
  const unreadable = { egress: [{ toEntities: ['moon'] }] };
  assert.deepEqual(
    spared([{ fromEntities: ['world'] }], unreadable),
    ['unless-api-server'],
    'its denials could be read',
  );
  assert.deepEqual(spared([{ fromEntities: ['moon'] }], unreadable), [undefined], 'that may have been the node');
});

test('parsePolicy() closes a policy for nodes without denials: they would win over what a node cannot do without', () => {
  const [node] = parsePolicy({
    kind: 'CiliumClusterwideNetworkPolicy',
    metadata: { name: 'p' },
    spec: { nodeSelector: {}, ingressDeny: [{ fromCIDR: many(50_001, block) }] },
  })!.row!.specs;
  assert.deepEqual([node!.isolates.ingress, node!.ingress], [true, []]);
});

test('parsePolicy() takes a policy that is at each limit', () => {
  const spec = {
    egress: [
      ...many(policyLimits.rules - 1, () => ({ toEntities: ['host'] })),
      { toCIDR: many(policyLimits.blocks, block) },
    ],
  };
  assert.deepEqual(parsePolicy(cilium(spec))!.problems, []);
});

test('parsePolicy() lets policies of the whole cluster ask for ten times as much', () => {
  const spec = { endpointSelector: {}, egressDeny: [{ toCIDR: many(5_001, block) }] };
  const metadata = { name: 'threats' };
  const given = { apiVersion: 'cilium.io/v2', kind: 'CiliumClusterwideNetworkPolicy', metadata, spec };
  assert.deepEqual(parsePolicy(given)!.problems, []);
});

test('parsePolicy() reads strange letters as what they are: no name, no selector that means anybody else', () => {
  for (const strange of ['ｗｅｂ', 'web\u0000', '\u202ebew', '👻'.repeat(40), '__proto__', 'constructor']) {
    const { row } = parsePolicy(cilium({ endpointSelector: { matchLabels: { [strange]: strange } }, ingress: [{}] }))!;
    assert.ok(row !== undefined);
    assert.equal(
      row.specs[0]!.ingress.every((rule) => rule.peers?.length === 0),
      true,
      strange,
    );
  }
});

function createSources() {
  const tables = {
    objects: createTable<PolicyObjectRow>({ name: 'objects', key: (row) => row.key }),
    namespaces: createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name }),
    nodes: createTable<NodeRow>({ name: 'nodes', key: (row) => row.name }),
    cidrGroups: createTable<CidrGroupRow>({ name: 'groups', key: (row) => row.name }),
    services: createTable<PolicyServiceRow>({ name: 'services', key: (row) => row.key }),
  };
  for (const table of Object.values(tables)) table.markInitialized();
  const policies = createTable<PolicyRow>({ name: 'policies', key: (row) => row.key });
  const derivation = resolvePolicies(tables, policies, { nodeName: 'a', clusterStaged: false });
  return { ...tables, policies, derivation };
}

test('resolvePolicies() closes a policy that is over a limit with the group that it names, and opens it again', () => {
  const { objects, cidrGroups, policies, derivation } = createSources();
  objects.upsert(parsePolicy(cilium({ egress: [{ toCIDRSet: [{ cidrGroupRef: 'big' }] }] }))!.row!);
  const group = (count: number): CidrGroupRow => ({ name: 'big', labels: {}, cidrs: many(count, block), problems: [] });
  const [key] = [...objects.rows()].map((row) => row.key);
  cidrGroups.upsert(group(5_001));
  derivation.flush();
  assert.match(policies.get(key!)?.error ?? '', /has 5001 blocks; 5000 are allowed/);
  assert.deepEqual([policies.get(key!)!.egress, policies.get(key!)!.isolates.egress], [[], true]);
  cidrGroups.upsert(group(2));
  derivation.flush();
  assert.equal(policies.get(key!)!.error, undefined);
  assert.equal(policies.get(key!)!.egress[0]!.peers!.length, 2);
});

test('resolvePolicies() lets the oldest policies of a namespace count, and others are untouched', () => {
  const { objects, policies, derivation } = createSources();
  const at = (i: number, namespace = 'evil'): PolicyObjectRow => ({
    ...parsePolicy(cilium({ ingress: [{ fromEntities: ['world'] }] }, `p${i}`, namespace))!.row!,
    created: new Date(i * 1000).toISOString(),
  });
  const limit = namespaceLimits.policies;
  objects.upsert([at(1, 'shop'), ...many(limit, (i) => at(limit - i))]);
  derivation.flush();
  const refused = () => [...policies.rows()].flatMap((row) => (row.error === undefined ? [] : [row.name]));
  assert.deepEqual(refused(), []);
  const before = policies.revision;
  objects.upsert([at(0), at(limit + 1)]);
  derivation.flush();
  assert.deepEqual(refused().sort(), [`p${limit}`, `p${limit + 1}`]);
  assert.match(
    [...policies.rows()].find((row) => row.error)!.error!,
    /have more than 2000 policies together, and the oldest count/,
  );
  assert.equal(policies.changesSince(before).changes.length, 3, 'only those that came and the one that is refused now');
  objects.delete([at(1).key, at(2).key]);
  derivation.flush();
  assert.deepEqual(refused(), []);
});

test('resolvePolicies() adds up what the policies of a namespace ask for, when one of them grows too', () => {
  const { objects, policies, derivation } = createSources();
  const at = (i: number, ports: number): PolicyObjectRow => ({
    ...parsePolicy(
      cilium(
        {
          ingress: many(ports / 40, (j) => ({
            toPorts: [{ ports: many(40, (k) => ({ port: String(1 + 40 * j + k), protocol: 'TCP' })) }],
          })),
        },
        `p${i}`,
      ),
    )!.row!,
    created: new Date(i * 1000).toISOString(),
  });
  objects.upsert([...many(8, (i) => at(i, 2_000)), at(8, 360)]);
  derivation.flush();
  const refused = () => [...policies.rows()].flatMap((row) => (row.error === undefined ? [] : [row.name]));
  assert.deepEqual(refused(), []);
  objects.upsert(at(8, 400));
  derivation.flush();
  assert.deepEqual(refused(), ['p8']);
  assert.match(
    [...policies.rows()].find((row) => row.error)!.error!,
    /have more than 16384 prefixes of ports together/,
  );
  objects.upsert(at(3, 1_000));
  derivation.flush();
  assert.deepEqual(refused(), []);
});

test('resolvePolicies() counts what groups bring to the policies of a namespace, and says which limit is reached', () => {
  const { objects, cidrGroups, policies, derivation } = createSources();
  const rule = { egress: [{ toCIDRSet: [{ cidrGroupRef: 'big' }] }] };
  const names = ['p0', 'p1', 'p2', 'p3', 'p4'];
  objects.upsert(
    names.map((name, i) => ({ ...parsePolicy(cilium(rule, name))!.row!, created: new Date(i * 1000).toISOString() })),
  );
  const group = (count: number): CidrGroupRow => ({ name: 'big', labels: {}, cidrs: many(count, block), problems: [] });
  const refused = () => [...policies.rows()].flatMap((row) => (row.error === undefined ? [] : [row.name]));
  cidrGroups.upsert(group(namespaceLimits.blocks / 5));
  derivation.flush();
  assert.deepEqual(refused(), []);
  cidrGroups.upsert(group(namespaceLimits.blocks / 5 + 1));
  derivation.flush();
  assert.deepEqual(refused(), ['p4']);
  assert.match([...policies.rows()].find((row) => row.error)!.error!, /have more than 20000 blocks together/);
  cidrGroups.upsert(group(1));
  derivation.flush();
  assert.deepEqual(refused(), []);
});

test('a closed policy of many specs is one row: of those alike, and of its namespace where they differ', () => {
  const specs = (selector: (i: number) => object, more = {}) =>
    many(20_000, (i) => ({
      endpointSelector: { matchLabels: selector(i) },
      ingressDeny: [{ fromEndpoints: [{}] }],
      ...more,
    }));
  const rowsOf = (given: object[], kind = 'CiliumNetworkPolicy') => {
    const { spec: _, ...policy } = cilium({}) as Record<string, unknown>;
    const { row } = parsePolicy({ ...policy, kind, specs: given })!;
    assert.match(row!.error!, /has 20000 rules/);
    return resolvePolicy(row!, emptyContext);
  };
  const alike = rowsOf(specs(() => ({ app: 'a' })));
  assert.equal(alike.length, 1);
  assert.equal(alike[0]!.subject.kind === 'endpoints' && alike[0]!.subject.selector.matchLabels.app, 'a');
  const all = rowsOf([
    ...specs((i) => ({ app: `a${i}` })).slice(1),
    ...specs(() => ({}), { ingressDeny: [{ fromEntities: ['host'] }] }).slice(0, 1),
  ]);
  assert.equal(all.length, 1);
  assert.deepEqual(all[0]!.subject, {
    kind: 'endpoints',
    selector: { matchLabels: { 'io.kubernetes.pod.namespace': all[0]!.namespace }, matchExpressions: [] },
  });
  assert.deepEqual(all[0]!.isolates, { ingress: true, egress: true });
  assert.deepEqual(
    all[0]!.ingress.map(({ action, peers, sparesOwnNode }) => [action, peers, sparesOwnNode]),
    [['deny', undefined, undefined]],
    'one of them denied the node',
  );
});

test('overNamespaceLimit() says the same of those it refuses when one more comes', () => {
  const policies = many(namespaceLimits.policies + 3, (i) => parsePolicy(cilium({ ingress: [{}] }, `p${i}`))!.row!);
  const [before, after] = [overNamespaceLimit(policies.slice(0, -1)), overNamespaceLimit(policies)];
  assert.deepEqual([before.size, after.size], [2, 3]);
  assert.equal(new Set([...before.values(), ...after.values()]).size, 1);
});

test('overNamespaceLimit() refuses nobody while there is room', () => {
  assert.equal(overNamespaceLimit([{ key: 'a', kind: 'NetworkPolicy', namespace: 'a', specs: [] }]).size, 0);
});

test('the compiler: what a neighbour asks for costs others nothing when they change', () => {
  const compiler = createPolicyCompiler();
  const set = <R>(key: string | number, after: R) => ({ changes: [{ key, after, revision: 1 }], resync: false });
  const sets = <R>(rows: readonly (readonly [string | number, R])[]) => ({
    changes: rows.map(([key, after]) => ({ key, after, revision: 1 })),
    resync: false,
  });
  const namespaces = ['evil', 'shop'];
  compiler.update({
    namespaces: sets(namespaces.map((name) => [name, { name, labels: {} }] as const)),
    identities: sets(
      namespaces.map(
        (name, i) =>
          [300 + i, { id: 300 + i, labels: [`k8s:io.kubernetes.pod.namespace=${name}`, 'k8s:app=web'] }] as const,
      ),
    ),
    addresses: sets(
      namespaces.map(
        (_, i) =>
          [
            `10.244.0.${i + 2}`,
            {
              address: `10.244.0.${i + 2}`,
              identity: 300 + i,
              namedPorts: [],
              local: true,
              ifindex: 9 + i,
              endpointId: 1 + i,
            },
          ] as const,
      ),
    ),
  } as never);
  const rules = many(50, (i) => ({
    fromCIDR: [block(i * 7)],
    toPorts: [{ ports: many(40, (j) => ({ port: String(1 + ((i * 40 + j) % 65_535)), protocol: 'TCP' })) }],
  }));
  const [bad] = readPolicies([cilium({ ingress: rules })]);
  const heavy = compiler.update({ policies: set(bad!.key, bad!) });
  assert.ok(heavy.ports.upsert.length <= policyLimits.portPrefixes + 1, `${heavy.ports.upsert.length} rows of ports`);
  const [own] = readPolicies([
    cilium(
      { ingress: [{ fromEndpoints: [{ matchLabels: { app: 'web' } }], toPorts: [{ ports: [{ port: '80' }] }] }] },
      'own',
      'shop',
    ),
  ]);
  const light = compiler.update({ policies: set(own!.key, own!) });
  assert.ok(light.ports.upsert.length <= 8, `${light.ports.upsert.length} rows of ports`);
  assert.ok(light.peers.upsert.length + light.peers.close.length <= 4);
  assert.deepEqual(light.ipcache.upsert, [], 'nobody is sorted anew');
});
