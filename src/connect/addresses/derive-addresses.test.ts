import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { reservedIdentities } from '../../core/identity.ts';
import type { AddressRow, EndpointRow, NodeRow, RemoteEndpointRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createAddressDerivation } from './derive-addresses.ts';

const address = (name: string) => createTable<{ address: string }>({ name, key: (row) => row.address });

function setUp() {
  const sources = {
    endpoints: createTable<EndpointRow>({ name: 'endpoints', key: (row) => row.id, historyLimit: 8 }),
    remoteEndpoints: createTable<RemoteEndpointRow>({ name: 'remote', key: (row) => row.key, historyLimit: 8 }),
    nodes: createTable<NodeRow>({ name: 'nodes', key: (row) => row.name, historyLimit: 8 }),
    hostAddresses: address('host'),
    apiServers: address('api'),
  };
  const to = createTable<AddressRow>({ name: 'addresses', key: (row) => row.address });
  return { sources, to, derivation: createAddressDerivation(sources, to, 'n1') };
}

const endpoint = (id: number, ipv4: string, identity = 300): EndpointRow => ({
  id,
  containerId: `c${id}`,
  namespace: 'shop',
  pod: `pod${id}`,
  interfaceName: 'eth0',
  ifindex: 1000 + id,
  ipv4,
  mac: '',
  identity,
  labels: {},
  namedPorts: [],
  state: 'ready',
  netns: '',
  createdAtMs: 0,
});
const remote = (id: number, ipv4: string, node = 'n2'): RemoteEndpointRow => ({
  key: `${node}/${id}`,
  node,
  id,
  namespace: 'shop',
  pod: `far${id}`,
  ipv4,
  identity: 400,
  namedPorts: [],
});
const node = (name: string, ...addresses: string[]): NodeRow => ({ name, addresses, podCidrs: [], clusterPools: [] });

test('what made a pod is known of pods of this node and of others', () => {
  const { sources, to, derivation } = setUp();
  const workload = { kind: 'Deployment', name: 'web' };
  sources.endpoints.upsert({ ...endpoint(1, '10.0.0.1'), workload });
  sources.remoteEndpoints.upsert([{ ...remote(1, '10.0.1.1'), workload }, remote(2, '10.0.1.2')]);
  derivation.run();
  assert.deepEqual(
    ['10.0.0.1', '10.0.1.1', '10.0.1.2'].map((address) => to.get(address)?.workload),
    [workload, workload, undefined],
  );
});

test('a later source wins: api server < slice < node < local pod < own device', () => {
  const { sources, to, derivation } = setUp();
  const kindAfter = (write: () => void) => {
    write();
    derivation.run();
    return to.get('10.0.0.1')?.kind;
  };
  assert.equal(
    kindAfter(() => sources.apiServers.upsert({ address: '10.0.0.1' })),
    'kube-apiserver',
  );
  assert.equal(
    kindAfter(() => sources.remoteEndpoints.upsert(remote(1, '10.0.0.1'))),
    'pod',
  );
  assert.equal(to.get('10.0.0.1')?.node, 'n2');
  assert.equal(
    kindAfter(() => sources.nodes.upsert(node('n2', '10.0.0.1'))),
    'remote-node',
  );
  assert.equal(
    kindAfter(() => sources.endpoints.upsert(endpoint(1, '10.0.0.1'))),
    'pod',
  );
  assert.equal(to.get('10.0.0.1')?.ifindex, 1001);
  assert.equal(
    kindAfter(() => sources.hostAddresses.upsert({ address: '10.0.0.1' })),
    'host',
  );
  // And back again, as each withdraws its claim.
  assert.equal(
    kindAfter(() => sources.hostAddresses.delete('10.0.0.1')),
    'pod',
  );
  assert.equal(
    kindAfter(() => sources.endpoints.delete(1)),
    'remote-node',
  );
  assert.equal(
    kindAfter(() => sources.nodes.delete('n2')),
    'pod',
  );
  assert.equal(
    kindAfter(() => sources.remoteEndpoints.delete('n2/1')),
    'kube-apiserver',
  );
  assert.equal(
    kindAfter(() => sources.apiServers.delete('10.0.0.1')),
    undefined,
  );
});

test('this node’s own addresses are host, another node’s are remote-node', () => {
  const { sources, to, derivation } = setUp();
  sources.nodes.upsert([node('n1', '10.9.0.1'), node('n2', '10.9.0.2')]);
  derivation.run();
  assert.equal(to.get('10.9.0.1')?.identity, reservedIdentities.host);
  assert.equal(to.get('10.9.0.2')?.identity, reservedIdentities['remote-node']);
});

test('a pod without an identity is marked pending; a slice of this very node says nothing', () => {
  const { sources, to, derivation } = setUp();
  sources.endpoints.upsert(endpoint(1, '10.0.0.1', reservedIdentities.init));
  sources.remoteEndpoints.upsert(remote(2, '10.0.0.2', 'n1'));
  derivation.run();
  assert.equal(to.get('10.0.0.1')?.pending, true);
  assert.equal(to.get('10.0.0.2'), undefined);
});

test('an address that moves from one pod to another never belongs to nobody in between', () => {
  const { sources, to, derivation } = setUp();
  sources.endpoints.upsert(endpoint(1, '10.0.0.1'));
  derivation.run();
  const seen: unknown[] = [];
  to.subscribe(() => seen.push(to.get('10.0.0.1')?.pod));
  sources.endpoints.batch(() => {
    sources.endpoints.delete(1);
    sources.endpoints.upsert(endpoint(2, '10.0.0.1'));
  });
  derivation.run();
  assert.deepEqual(seen, ['pod2']);
});

test('of two pods that claim one address the one with the higher number has it, in whatever order they come', () => {
  for (const order of [
    [9, 10],
    [10, 9],
  ]) {
    const { sources, to, derivation } = setUp();
    for (const id of order) sources.remoteEndpoints.upsert(remote(id, '10.0.0.1'));
    derivation.run();
    assert.equal(to.get('10.0.0.1')?.pod, 'far10');
  }
});

test('it is initialized when every source is', () => {
  const { sources, to, derivation } = setUp();
  for (const table of Object.values(sources)) {
    derivation.run();
    assert.equal(to.initialized, false);
    table.markInitialized();
  }
  derivation.run();
  assert.equal(to.initialized, true);
});

test('step by step gives what a derivation from scratch gives, resyncs included', () => {
  const last = fc.integer({ min: 1, max: 4 });
  const ip = last.map((n) => `10.0.0.${n}`);
  const step = fc.record({
    source: fc.constantFrom('endpoints', 'remoteEndpoints', 'nodes', 'hostAddresses', 'apiServers'),
    id: last,
    ip,
    remove: fc.boolean(),
    run: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { sources, to, derivation } = setUp();
      for (const { source, id, ip: text, remove, run } of steps) {
        const { endpoints, remoteEndpoints, nodes } = sources;
        if (source === 'endpoints') remove ? endpoints.delete(id) : endpoints.upsert(endpoint(id, text));
        else if (source === 'remoteEndpoints')
          remove ? remoteEndpoints.delete(`n2/${id}`) : remoteEndpoints.upsert(remote(id, text));
        else if (source === 'nodes') remove ? nodes.delete(`n${id}`) : nodes.upsert(node(`n${id}`, text));
        else remove ? sources[source].delete(text) : sources[source].upsert({ address: text });
        if (run) derivation.run();
      }
      derivation.run();
      const fresh = createTable<AddressRow>({ name: 'fresh', key: (row) => row.address });
      createAddressDerivation(sources, fresh, 'n1').run();
      const kinds = (table: typeof to) =>
        [...table.rows()].map((row) => `${row.address} ${row.kind} ${row.pod} ${row.node}`).sort();
      assert.deepEqual(kinds(to), kinds(fresh));
    }),
    { numRuns: 200 },
  );
});
