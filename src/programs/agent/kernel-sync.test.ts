import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAddressDerivation } from '../../connect/addresses/derive-addresses.ts';
import type { DatapathWriter } from '../../connect/datapath/datapath-writer.ts';
import type {
  AddressRow,
  EndpointRow,
  IdentityRow,
  NamespaceRow,
  NodeRow,
  PolicyRow,
  PrefixRow,
  RemoteEndpointRow,
} from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createPolicyCompiler } from '../../secure/policy/compile.ts';
import { readPolicies } from '../../secure/policy/read-policies.ts';
import { createKernelSync } from './kernel-sync.ts';

const endpoint = (id: number, more: Partial<EndpointRow> = {}): EndpointRow => ({
  id,
  containerId: `c${id}`,
  namespace: 'shop',
  pod: `pod${id}`,
  interfaceName: 'eth0',
  ifindex: 100 + id,
  ipv4: `10.0.0.${id}`,
  mac: '',
  identity: 300,
  labels: {},
  namedPorts: [],
  state: 'ready',
  netns: '',
  createdAtMs: 0,
  ...more,
});

function setUp() {
  const endpoints = createTable<EndpointRow>({ name: 'endpoints', key: (row) => row.id });
  const identities = createTable<IdentityRow>({ name: 'identities', key: (row) => row.id });
  const namespaces = createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name });
  const policies = createTable<PolicyRow>({ name: 'policies', key: (row) => row.key });
  const prefixes = createTable<PrefixRow>({ name: 'prefixes', key: (row) => row.cidr });
  const addresses = createTable<AddressRow>({ name: 'addresses', key: (row) => row.address });
  const remoteEndpoints = createTable<RemoteEndpointRow>({ name: 'remote', key: (row) => row.key });
  const nodes = createTable<NodeRow>({ name: 'nodes', key: (row) => row.name });
  const hostAddresses = createTable<{ address: string }>({ name: 'host', key: (row) => row.address });
  const apiServers = createTable<{ address: string }>({ name: 'api', key: (row) => row.address });
  const log: string[] = [];
  const writer: DatapathWriter = {
    apply(delta) {
      for (const row of delta.peers.upsert) log.push(`peer ${row.direction}`);
      for (const row of delta.ipcache.upsert) log.push(`address ${row.address}`);
      for (const address of delta.ipcache.delete) log.push(`no address ${address}`);
    },
    putEndpoint: (row) => void log.push(`device ${row.ifindex}`),
    removeEndpoint: (row) => void log.push(`no device ${row.ifindex}`),
    restart: () => void log.push('take over'),
    prune: () => void log.push('prune'),
    raiseAll: () => void log.push('raise all'),
    retry: () => false,
    status: () => [],
    policyStatus: () => ({ waiting: 0, closed: [], over: [], unplaced: 0 }),
    policyProblem: () => undefined,
  };
  const errors: unknown[] = [];
  const counts = { applied: 0 };
  const sync = createKernelSync({
    tables: { endpoints, identities, namespaces, policies, prefixes, addresses },
    addressDerivation: createAddressDerivation(
      { endpoints, remoteEndpoints, nodes, hostAddresses, apiServers },
      addresses,
      'n1',
    ),
    compiler: createPolicyCompiler(),
    writer,
    onApplied: () => void counts.applied++,
    onError: (error) => void errors.push(error),
  });
  const sources = [
    endpoints,
    identities,
    namespaces,
    policies,
    prefixes,
    remoteEndpoints,
    nodes,
    hostAddresses,
    apiServers,
  ];
  return { endpoints, identities, policies, sources, writer, log, errors, counts, sync };
}

test('nothing is written before every source has been read once', () => {
  const { endpoints, sources, log, sync } = setUp();
  endpoints.upsert(endpoint(1));
  for (const table of sources) {
    sync.settle();
    assert.deepEqual([log, sync.synced], [[], false]);
    table.markInitialized();
  }
  sync.settle();
  assert.equal(sync.synced, true);
  assert.equal(log.length > 0, true);
});

test('the first pass writes everything, prunes what is left over, then lets everything be judged again', () => {
  const { endpoints, identities, sources, log, sync } = setUp();
  identities.upsert({ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] });
  endpoints.upsert(endpoint(1));
  for (const table of sources) table.markInitialized();
  sync.settle();
  assert.deepEqual(log.slice(-2), ['prune', 'raise all']);
  const at = (entry: string) => log.indexOf(entry);
  assert.ok(at('device 101') >= 0 && at('device 101') < at('address 10.0.0.1'), 'the device before its address');
  assert.ok(at('peer egress') < at('address 10.0.0.1'), 'its policy before its address');
  log.length = 0;
  sync.settle();
  assert.deepEqual(log, []);
});

test('a later pass writes only what changed, and prunes nothing', () => {
  const { endpoints, identities, sources, log, sync } = setUp();
  identities.upsert({ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] });
  endpoints.upsert([endpoint(1), endpoint(2)]);
  for (const table of sources) table.markInitialized();
  sync.settle();
  log.length = 0;
  endpoints.delete(1);
  sync.settle();
  assert.deepEqual(log.sort(), ['no address 10.0.0.1', 'no device 101']);
  log.length = 0;
  endpoints.upsert(endpoint(2, { ifindex: 202 }));
  sync.settle();
  assert.ok(log.includes('device 202') && log.includes('no device 102'));
});

test('a pod that is still being made has no device row', () => {
  const { endpoints, sources, log, sync } = setUp();
  for (const table of sources) table.markInitialized();
  endpoints.upsert(endpoint(1, { ifindex: 0, state: 'creating' }));
  sync.settle();
  assert.ok(!log.some((entry) => entry.startsWith('device')));
});

test('schedule() makes one pass of many changes', async () => {
  const { endpoints, sources, counts, sync } = setUp();
  for (const table of sources) table.markInitialized();
  for (let id = 1; id < 50; id++) {
    endpoints.upsert(endpoint(id));
    sync.schedule();
  }
  assert.equal(await sync.whenSynced(1_000), true);
  assert.equal(counts.applied, 1);
});

test('whenSynced() answers false when the sources do not come in time', async () => {
  const { sync } = setUp();
  assert.equal(await sync.whenSynced(5), false);
});

test('an error in a pass is told, and the next pass goes on', () => {
  const { endpoints, sources, writer, errors, sync } = setUp();
  for (const table of sources) table.markInitialized();
  sync.settle();
  const { putEndpoint } = writer;
  writer.putEndpoint = () => {
    throw new Error('a bug');
  };
  endpoints.upsert(endpoint(1));
  sync.settle();
  assert.equal(errors.length, 1);
  writer.putEndpoint = putEndpoint;
  endpoints.upsert(endpoint(2));
  sync.settle();
  assert.equal(errors.length, 1);
});

test('what could not be applied is pending until it is, though the compiler does not say it again', () => {
  const { endpoints, identities, sources, writer, log, sync } = setUp();
  identities.upsert({ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] });
  for (const table of sources) table.markInitialized();
  sync.settle();
  const { apply } = writer;
  writer.apply = () => {
    throw new Error('a bug');
  };
  endpoints.upsert(endpoint(1));
  sync.settle();
  assert.equal(sync.pending, true);
  writer.apply = apply;
  sync.settle();
  assert.equal(sync.pending, false);
  assert.ok(log.includes('address 10.0.0.1'));
});

/** A policy whose rules cannot be read so many times: the compiler fails when it has taken others already. */
function failingPolicy(times: number): PolicyRow {
  const [row] = readPolicies([
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'p', namespace: 'shop' },
      spec: { podSelector: {}, policyTypes: ['Ingress'] },
    },
  ]);
  let left = times;
  return Object.defineProperty({ ...row! }, 'ingress', {
    get() {
      if (left-- > 0) throw new Error('a bug');
      return [];
    },
  });
}

test('when the compiler fails half way, everything is compiled again, and said until then', async () => {
  const { endpoints, identities, policies, sources, log, errors, sync } = setUp();
  for (const table of sources) table.markInitialized();
  endpoints.upsert(endpoint(1));
  identities.upsert({ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] });
  sync.settle();
  log.length = 0;
  policies.upsert(failingPolicy(2));
  identities.upsert({ id: 301, labels: ['k8s:app=db', 'k8s:io.kubernetes.pod.namespace=shop'] });
  endpoints.upsert(endpoint(2, { identity: 301 }));
  for (let i = 1; i <= 2; i++) {
    sync.settle();
    assert.deepEqual([errors.length, sync.error, sync.pending], [i, 'a bug', true]);
  }
  log.length = 0;
  sync.settle();
  assert.deepEqual([errors.length, sync.error, sync.pending], [2, undefined, false]);
  assert.equal(log[0], 'take over');
  for (const address of ['10.0.0.1', '10.0.0.2']) assert.ok(log.includes(`address ${address}`), address);
  assert.equal(log.filter((entry) => entry === 'peer ingress').length, 2, 'both are isolated');
  assert.deepEqual(log.slice(-2), ['prune', 'raise all']);
  log.length = 0;
  endpoints.delete(1);
  sync.settle();
  assert.ok(!log.includes('take over'), 'what follows builds on it');
  assert.ok(log.includes('no address 10.0.0.1'));
});

test('the first pass fails half way and is made again from the start', () => {
  const { endpoints, identities, policies, sources, log, sync } = setUp();
  for (const table of sources) table.markInitialized();
  endpoints.upsert(endpoint(1));
  identities.upsert({ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] });
  policies.upsert(failingPolicy(1));
  sync.settle();
  assert.deepEqual([sync.synced, sync.error], [false, 'a bug']);
  assert.ok(!log.includes('prune'));
  sync.settle();
  assert.deepEqual([sync.synced, sync.error], [true, undefined]);
  assert.ok(log.includes('take over') && log.includes('address 10.0.0.1') && log.includes('peer ingress'));
});
