import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { AddressRow, FrontendRow, ServiceRow, ServiceSliceRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createServiceDerivation, type ExtraFrontends, type NodeFacts } from './service-derivation.ts';
import { makeEndpoint, makeNode, makeService, makeSlice } from './test-services.ts';

function world() {
  const { namespaceOf: _, refuseClaim: __, ...facts } = makeNode();
  const node: NodeFacts = { ...facts, nodeOf: (address) => (facts.addresses.has(address) ? 'n1' : undefined) };
  const tables = {
    services: createTable<ServiceRow, 'clusterIp'>({
      name: 'services',
      key: (row) => row.key,
      indexes: { clusterIp: (row) => row.clusterIps },
    }),
    slices: createTable<ServiceSliceRow, 'service'>({
      name: 'slices',
      key: (row) => row.key,
      indexes: { service: (row) => row.service },
    }),
    extras: createTable<ExtraFrontends>({ name: 'extras', key: (row) => row.owner }),
    addresses: createTable<AddressRow>({ name: 'addresses', key: (row) => row.address }),
  };
  const start = () => {
    const to = createTable<FrontendRow>({ name: 'frontends', key: (row) => row.key });
    return { to, derivation: createServiceDerivation({ ...tables, to, node: () => node }) };
  };
  const begin = () => {
    for (const table of Object.values(tables)) table.markInitialized();
  };
  return { ...tables, ...start(), start, begin };
}

const pod = (address: string, namespace: string): AddressRow => ({
  address,
  namespace,
  pod: 'p',
  identity: 300,
  kind: 'pod',
  namedPorts: [],
  ifindex: 0,
  endpointId: 0,
});

test('createServiceDerivation() writes nothing before every source has been read', () => {
  const { services, slices, extras, addresses, to, derivation } = world();
  services.upsert(makeService({ key: 'shop/web' }));
  for (const table of [services, slices, extras]) table.markInitialized();
  derivation.run();
  assert.equal(to.initialized, false);
  addresses.markInitialized();
  derivation.run();
  assert.ok(to.initialized);
  assert.equal(to.size, 1);
});

test('createServiceDerivation() makes only the Service anew whose slice changed', () => {
  const { services, slices, begin, to, derivation } = world();
  services.upsert([1, 2].map((i) => makeService({ key: `shop/web${i}`, clusterIps: [`10.96.0.${i}`] })));
  begin();
  derivation.run();
  const before = to.get('inside 10.96.0.2:80/TCP');
  slices.upsert(makeSlice('shop/web1', [makeEndpoint({ address: '10.0.0.1' })]));
  derivation.takeChanged();
  derivation.run();
  assert.equal(to.get('inside 10.96.0.1:80/TCP')!.backends.length, 1);
  assert.equal(to.get('inside 10.96.0.2:80/TCP'), before);
  assert.deepEqual(derivation.takeChanged(), ['shop/web1']);
});

test('createServiceDerivation() gives an address that two claim to the older, and to the other when it goes', () => {
  const { services, begin, to, derivation } = world();
  const claim = (key: string, createdAt: string, ip: string) =>
    makeService({ key, createdAt, clusterIps: [ip], externalIps: ['198.51.100.1'] });
  services.upsert(claim('b/young', '2026-02-02T00:00:00Z', '10.96.0.1'));
  begin();
  derivation.run();
  services.upsert(claim('a/old', '2026-01-01T00:00:00Z', '10.96.0.2'));
  derivation.run();
  const key = 'outside 198.51.100.1:80/TCP';
  assert.equal(to.get(key)!.service, 'a/old');
  assert.match(
    derivation.status('b/young')!.problems.join(),
    /outside 198\.51\.100\.1:80\/TCP is ignored: a\/old has it/,
  );
  assert.deepEqual(derivation.status('a/old')!.problems, []);
  derivation.takeChanged();
  services.delete('a/old');
  derivation.run();
  assert.equal(to.get(key)!.service, 'b/young');
  assert.deepEqual(derivation.status('b/young')!.problems, []);
  assert.ok(derivation.takeChanged().includes('b/young'));
});

test('createServiceDerivation() lets nobody have the cluster IP of a Service that comes later', () => {
  const { services, begin, to, derivation } = world();
  const thief = makeService({
    key: 'evil/web',
    createdAt: '2020-01-01T00:00:00Z',
    clusterIps: ['10.96.0.1'],
    externalIps: ['10.96.0.2'],
  });
  services.upsert(thief);
  begin();
  derivation.run();
  assert.equal(to.get('inside 10.96.0.2:80/TCP')!.service, 'evil/web');
  services.upsert(makeService({ key: 'bank/web', clusterIps: ['10.96.0.2'] }));
  derivation.run();
  assert.equal(to.get('inside 10.96.0.2:80/TCP')!.service, 'bank/web');
  assert.equal(to.get('outside 10.96.0.2:80/TCP'), undefined);
  assert.match(derivation.status('evil/web')!.problems.join(), /cluster IP of bank\/web/);
});

test('createServiceDerivation() refuses claims of node and pod addresses, also of pods that come later', () => {
  const { services, addresses, begin, to, derivation } = world();
  services.upsert(makeService({ key: 'shop/web', externalIps: ['192.0.2.1', '10.244.1.9'] }));
  begin();
  derivation.run();
  assert.equal(to.get('inside 192.0.2.1:80/TCP'), undefined);
  assert.ok(to.has('inside 10.244.1.9:80/TCP'));
  addresses.upsert(pod('10.244.1.9', 'shop'));
  derivation.run();
  assert.ok(!to.has('inside 10.244.1.9:80/TCP'));
  assert.match(derivation.status('shop/web')!.problems.join('\n'), /address of node n1\n.*address of pod shop\/p/);
  addresses.delete('10.244.1.9');
  derivation.run();
  assert.ok(to.has('inside 10.244.1.9:80/TCP'));
});

test('createServiceDerivation() leaves out an endpoint once its address is a pod of another namespace, and takes it back', () => {
  const { services, slices, addresses, begin, to, derivation } = world();
  services.upsert(makeService({ key: 'shop/web' }));
  slices.upsert(makeSlice('shop/web', [makeEndpoint({ address: '10.244.1.9' })]));
  begin();
  const backends = () => to.get('inside 10.96.0.10:80/TCP')!.backends.length;
  derivation.run();
  assert.equal(backends(), 1);
  addresses.upsert(pod('10.244.1.9', 'bank'));
  derivation.run();
  assert.equal(backends(), 0);
  addresses.upsert(pod('10.244.1.9', 'shop'));
  derivation.run();
  assert.equal(backends(), 1);
});

// The law: however the tables came to be what they are, the frontends are what a fresh start makes of them.
const names = ['shop/a', 'shop/b', 'bank/c'];
const ips = ['10.96.0.1', '10.96.0.2', '10.96.0.3', '198.51.100.1', '10.244.1.1', '192.0.2.1', 'fd00::1'];
const address = fc.constantFrom(...ips);
const endpoint = fc.record({
  address: fc.constantFrom('10.244.1.1', '10.244.1.2', '10.244.2.1'),
  ready: fc.boolean(),
  terminating: fc.boolean(),
  node: fc.constantFrom('n1', 'n2'),
});
const service = fc.record({
  key: fc.constantFrom(...names),
  createdAt: fc.constantFrom('2026-01-01', '2026-01-02'),
  clusterIps: fc.uniqueArray(fc.constantFrom('10.96.0.1', '10.96.0.2', '10.96.0.3'), { minLength: 1, maxLength: 1 }),
  externalIps: fc.uniqueArray(address, { maxLength: 2 }),
  externalLocal: fc.boolean(),
  internalLocal: fc.boolean(),
  ports: fc.constantFrom(
    [{ name: '', protocol: 'TCP' as const, port: 80 }],
    [{ name: '', protocol: 'TCP' as const, port: 80, nodePort: 30000 }],
  ),
});
const step = fc.oneof(
  service.map((row) => ({ do: 'service' as const, row })),
  fc.constantFrom(...names).map((key) => ({ do: 'drop service' as const, key })),
  fc
    .record({
      service: fc.constantFrom(...names),
      part: fc.constantFrom('1', '2'),
      endpoints: fc.array(endpoint, { maxLength: 3 }),
    })
    .map((row) => ({ do: 'slice' as const, row })),
  fc
    .constantFrom(...names.flatMap((name) => [`${name}-1`, `${name}-2`]))
    .map((key) => ({ do: 'drop slice' as const, key })),
  fc.record({ address, namespace: fc.constantFrom('shop', 'bank') }).map((row) => ({ do: 'pod' as const, row })),
  address.map((key) => ({ do: 'drop pod' as const, key })),
  fc
    .record({
      owner: fc.constantFrom('pod x', 'pod y'),
      createdAt: fc.constantFrom('2026-01-01', '2026-01-03'),
      port: fc.constantFrom(80, 30000),
    })
    .map((row) => ({ do: 'host port' as const, row })),
  fc.constantFrom('pod x', 'pod y').map((key) => ({ do: 'drop host port' as const, key })),
);

function hostPort(owner: string, port: number): FrontendRow {
  return {
    key: `outside 192.0.2.1:${port}/TCP`,
    address: '192.0.2.1',
    port,
    protocol: 'TCP',
    scope: 'outside',
    kind: 'HostPort',
    service: owner,
    portName: '',
    algorithm: 'random',
    affinitySeconds: 0,
    onlyLocal: true,
    directReturn: false,
    backends: [],
  };
}

test('createServiceDerivation() makes of any sequence of changes what it makes of their result', () => {
  fc.assert(
    fc.property(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 12 }), (rounds) => {
      const all = world();
      all.begin();
      for (const round of rounds) {
        for (const each of round) {
          if (each.do === 'service') all.services.upsert(makeService(each.row));
          else if (each.do === 'drop service') all.services.delete(each.key);
          else if (each.do === 'slice') {
            const { service: of, part, endpoints } = each.row;
            all.slices.upsert(makeSlice(of, endpoints.map(makeEndpoint), { key: `${of}-${part}` }));
          } else if (each.do === 'drop slice') all.slices.delete(each.key);
          else if (each.do === 'pod') all.addresses.upsert(pod(each.row.address, each.row.namespace));
          else if (each.do === 'drop pod') all.addresses.delete(each.key);
          else if (each.do === 'host port') {
            const { owner, createdAt, port } = each.row;
            all.extras.upsert({ owner, createdAt, frontends: [hostPort(owner, port)] });
          } else all.extras.delete(each.key);
        }
        all.derivation.run();
      }
      const fresh = all.start();
      fresh.derivation.run();
      const sorted = (table: typeof fresh.to) => [...table.rows()].sort((a, b) => (a.key < b.key ? -1 : 1));
      assert.deepEqual(sorted(all.to), sorted(fresh.to));
      const statuses = (of: typeof fresh.derivation) => of.statuses().sort((a, b) => (a.service < b.service ? -1 : 1));
      if (rounds.length > 0) assert.deepEqual(statuses(all.derivation), statuses(fresh.derivation));
    }),
    { numRuns: 400 },
  );
});
