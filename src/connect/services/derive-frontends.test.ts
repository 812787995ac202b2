import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FrontendRow, ServiceRow } from '../../core/rows.ts';
import { frontendsOf, type NodeContext } from './derive-frontends.ts';
import { makeEndpoint, makeNode, makeService, makeSlice, type SliceEndpoint } from './test-services.ts';

const near = (i: number, more: Partial<SliceEndpoint> = {}) =>
  makeEndpoint({ address: `10.244.1.${i}`, node: 'n1', ...more });
const far = (i: number, more: Partial<SliceEndpoint> = {}) =>
  makeEndpoint({ address: `10.244.2.${i}`, node: 'n2', ...more });
const ending = { ready: false, serving: true, terminating: true } as const;

function derive(service: Partial<ServiceRow>, endpoints: readonly SliceEndpoint[], node: Partial<NodeContext> = {}) {
  return frontendsOf(makeService({ key: 'shop/web', ...service }), [makeSlice('shop/web', endpoints)], makeNode(node));
}

const serving = (row: FrontendRow | undefined) =>
  row?.backends.filter((each) => each.role.state === 'serving').map((each) => each.address);
const states = (row: FrontendRow | undefined) => row?.backends.map((each) => `${each.address} ${each.role.state}`);
const find = (result: { frontends: readonly FrontendRow[] }, kind: string, scope: string) =>
  result.frontends.find((row) => row.kind === kind && row.scope === scope);
const keys = (result: { frontends: readonly FrontendRow[] }) => result.frontends.map((row) => row.key).sort();

test('frontendsOf() has a cluster IP from inside only, all other addresses in both scopes, node ports on each address', () => {
  const result = derive(
    {
      type: 'LoadBalancer',
      clusterIps: ['10.96.0.10', 'fd00:96::a'],
      externalIps: ['198.51.100.1'],
      loadBalancerIps: ['203.0.113.1'],
      ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 30080 }],
    },
    [near(1)],
  );
  assert.deepEqual(keys(result), [
    'inside 0.0.0.0:30080/TCP',
    'inside 10.96.0.10:80/TCP',
    'inside 198.51.100.1:80/TCP',
    'inside 203.0.113.1:80/TCP',
    'inside [::]:30080/TCP',
    'inside [fd00:96::a]:80/TCP',
    'outside 192.0.2.1:30080/TCP',
    'outside 198.51.100.1:80/TCP',
    'outside 203.0.113.1:80/TCP',
    'outside [2001:db8::1]:30080/TCP',
  ]);
  assert.deepEqual(serving(find(result, 'ClusterIP', 'inside')), ['10.244.1.1']);
  assert.equal(find(result, 'ClusterIP', 'inside')!.algorithm, 'random');
  assert.equal(find(result, 'NodePort', 'outside')!.algorithm, 'maglev');
});

test('frontendsOf() has node ports only in the families of the Service', () => {
  const result = derive({ type: 'NodePort', ports: [{ name: '', protocol: 'UDP', port: 1, nodePort: 30001 }] }, []);
  assert.deepEqual(keys(result), [
    'inside 0.0.0.0:30001/UDP',
    'inside 10.96.0.10:1/UDP',
    'outside 192.0.2.1:30001/UDP',
  ]);
});

test('frontendsOf() matches ports by name and protocol, and the same number on several protocols', () => {
  const service = makeService({
    key: 'kube-system/dns',
    ports: [
      { name: 'dns', protocol: 'UDP', port: 53 },
      { name: 'dns-tcp', protocol: 'TCP', port: 53 },
      { name: 'other', protocol: 'TCP', port: 9 },
    ],
  });
  const slice = makeSlice('kube-system/dns', [near(1)], {
    ports: [
      { name: 'dns', protocol: 'UDP', port: 1053 },
      { name: 'dns-tcp', protocol: 'TCP', port: 2053 },
      { name: 'other', protocol: 'UDP', port: 9 },
    ],
  });
  const rows = frontendsOf(service, [slice], makeNode()).frontends;
  assert.deepEqual(
    rows.map((row) => [row.key, row.backends.map((each) => each.port)]),
    [
      ['inside 10.96.0.10:53/UDP', [1053]],
      ['inside 10.96.0.10:53/TCP', [2053]],
      ['inside 10.96.0.10:9/TCP', []],
    ],
  );
});

test('frontendsOf() with the internal policy Local serves cluster IPs from this node alone, and from nobody else', () => {
  const local = find(derive({ internalLocal: true }, [near(1), far(1)]), 'ClusterIP', 'inside');
  assert.deepEqual(serving(local), ['10.244.1.1']);
  assert.ok(local!.onlyLocal);
  assert.deepEqual(serving(find(derive({ internalLocal: true }, [far(1)]), 'ClusterIP', 'inside')), []);
});

test('frontendsOf() with the external policy Local serves outside from this node and inside from everywhere', () => {
  const result = derive({ type: 'LoadBalancer', externalLocal: true, loadBalancerIps: ['203.0.113.1'] }, [
    near(1),
    near(2, { ready: false }),
    far(1),
  ]);
  assert.deepEqual(serving(find(result, 'LoadBalancer', 'outside')), ['10.244.1.1']);
  assert.deepEqual(serving(find(result, 'LoadBalancer', 'inside')), ['10.244.1.1', '10.244.2.1']);
  assert.deepEqual(serving(find(result, 'ClusterIP', 'inside')), ['10.244.1.1', '10.244.2.1']);
  assert.equal(result.localReady, 1);
  assert.ok(find(result, 'LoadBalancer', 'outside')!.onlyLocal);
});

test('frontendsOf() falls back to endpoints that end but serve, only while none is ready', () => {
  const cluster = (endpoints: SliceEndpoint[]) => find(derive({}, endpoints), 'ClusterIP', 'inside');
  assert.deepEqual(states(cluster([near(1), near(2, ending)])), ['10.244.1.1 serving', '10.244.1.2 draining']);
  assert.deepEqual(states(cluster([near(2, ending), near(3, { ready: false })])), [
    '10.244.1.2 serving',
    '10.244.1.3 unready',
  ]);
  assert.deepEqual(serving(cluster([near(1, { ...ending, serving: false })])), []);
});

test('frontendsOf() decides on ending endpoints of this node by this node alone with the external policy Local', () => {
  const result = derive({ type: 'LoadBalancer', externalLocal: true, loadBalancerIps: ['203.0.113.1'] }, [
    near(1, ending),
    far(1),
  ]);
  assert.deepEqual(serving(find(result, 'LoadBalancer', 'outside')), ['10.244.1.1']);
  assert.deepEqual(states(find(result, 'LoadBalancer', 'inside')), ['10.244.1.1 draining', '10.244.2.1 serving']);
  assert.equal(result.localReady, 0);
});

test('frontendsOf() follows hints of nodes, then of zones, only when every endpoint has one and any is meant for us', () => {
  const hint = (address: string, forZones?: string[], forNodes?: string[]) =>
    makeEndpoint({ address, forZones, forNodes });
  const inside = (endpoints: SliceEndpoint[], node: Partial<NodeContext> = {}) =>
    states(find(derive({}, endpoints, node), 'ClusterIP', 'inside'));
  const zoned = [hint('10.0.0.1', ['z1']), hint('10.0.0.2', ['z2'])];
  assert.deepEqual(inside(zoned), ['10.0.0.1 serving', '10.0.0.2 standby']);
  assert.deepEqual(inside(zoned, { zone: 'z3' }), ['10.0.0.1 serving', '10.0.0.2 serving']);
  assert.deepEqual(inside(zoned, { zone: undefined }), ['10.0.0.1 serving', '10.0.0.2 serving']);
  assert.deepEqual(inside([...zoned, hint('10.0.0.3')]), ['10.0.0.1 serving', '10.0.0.2 serving', '10.0.0.3 serving']);
  assert.deepEqual(inside([hint('10.0.0.1', ['z1'], ['n2']), hint('10.0.0.2', ['z1'], ['n1'])]), [
    '10.0.0.1 standby',
    '10.0.0.2 serving',
  ]);
});

test('frontendsOf() gives external addresses all endpoints whatever the hints say: tables are equal on all nodes', () => {
  const endpoints = [
    makeEndpoint({ address: '10.0.0.1', forZones: ['z1'] }),
    makeEndpoint({ address: '10.0.0.2', forZones: ['z2'] }),
  ];
  const result = derive({ type: 'LoadBalancer', loadBalancerIps: ['203.0.113.1'] }, endpoints);
  assert.deepEqual(serving(find(result, 'LoadBalancer', 'outside')), ['10.0.0.1', '10.0.0.2']);
});

test('frontendsOf() takes a backend in maintenance out of new connections, whatever else there is', () => {
  const inMaintenance = (address: string, port: number) => address === '10.244.1.1' && port === 8080;
  const result = derive(
    { type: 'LoadBalancer', externalLocal: true, loadBalancerIps: ['203.0.113.1'] },
    [near(1), far(1)],
    {
      inMaintenance,
    },
  );
  assert.deepEqual(states(find(result, 'ClusterIP', 'inside')), ['10.244.1.1 maintenance', '10.244.2.1 serving']);
  assert.deepEqual(serving(find(result, 'LoadBalancer', 'outside')), []);
  assert.equal(result.localReady, 0);
  assert.deepEqual(serving(find(derive({}, [near(1)], { inMaintenance }), 'ClusterIP', 'inside')), []);
});

test('frontendsOf() ignores endpoints that are pods of other namespaces, whoever wrote the slice', () => {
  const result = derive({}, [near(1), near(2)], {
    namespaceOf: (address) => (address === '10.244.1.2' ? 'bank' : 'shop'),
  });
  assert.deepEqual(states(result.frontends[0]), ['10.244.1.1 serving']);
  assert.match(result.problems.join(), /10\.244\.1\.2.*namespace bank/);
});

test('frontendsOf() has an endpoint of two slices once, with the better news, in whatever order the slices come', () => {
  const slices = [
    makeSlice('shop/web', [near(1, { ready: false })], { key: 'shop/web-a' }),
    makeSlice('shop/web', [near(1), near(2)], { key: 'shop/web-b' }),
    makeSlice('shop/web', [near(2, ending)], { key: 'shop/web-c' }),
  ];
  const service = makeService({ key: 'shop/web' });
  const rows = frontendsOf(service, slices, makeNode()).frontends;
  assert.deepEqual(states(rows[0]), ['10.244.1.1 serving', '10.244.1.2 serving']);
  assert.deepEqual(frontendsOf(service, slices.toReversed(), makeNode()).frontends, rows);
});

test('frontendsOf() leaves claimed addresses out and says why', () => {
  const result = derive({ type: 'LoadBalancer', externalIps: ['192.0.2.7'], loadBalancerIps: ['192.0.2.8'] }, [], {
    refuseClaim: (address) => (address === '192.0.2.8' ? undefined : 'it is somebody else’s'),
  });
  assert.deepEqual(keys(result), ['inside 10.96.0.10:80/TCP', 'inside 192.0.2.8:80/TCP', 'outside 192.0.2.8:80/TCP']);
  assert.deepEqual(result.problems, ['external IP 192.0.2.7 is ignored: it is somebody else’s']);
});

test('frontendsOf() keeps source ranges of the frontend’s family, and lets nobody in where there are none of it', () => {
  const ranges = (sourceRanges?: readonly string[]) =>
    derive(
      { type: 'LoadBalancer', externalIps: ['203.0.113.1'], loadBalancerIps: ['203.0.113.1', 'fd00::9'], sourceRanges },
      [],
    )
      .frontends.filter((row) => row.scope === 'outside')
      .map((row) => [row.kind, row.address, row.sourceRanges]);
  assert.deepEqual(ranges(['10.0.0.0/8']), [
    ['LoadBalancer', '203.0.113.1', ['10.0.0.0/8']],
    ['LoadBalancer', 'fd00::9', []],
  ]);
  assert.deepEqual(ranges(), [
    ['LoadBalancer', '203.0.113.1', undefined],
    ['LoadBalancer', 'fd00::9', undefined],
  ]);
});

test('frontendsOf() says where each backend is', () => {
  const rows = derive({}, [
    near(1),
    far(1),
    makeEndpoint({ address: '192.0.2.1', node: 'n1' }),
    makeEndpoint({ address: '8.8.8.8' }),
  ]);
  assert.deepEqual(
    rows.frontends[0]!.backends.map((each) => [each.address, each.role.where]),
    [
      ['10.244.1.1', 'pod'],
      ['10.244.2.1', 'remote'],
      ['192.0.2.1', 'node'],
      ['8.8.8.8', 'remote'],
    ],
  );
});

test('frontendsOf() hands over with the policy Local when only ending pods serve here and others are ready elsewhere', () => {
  const service = { type: 'LoadBalancer', loadBalancerIps: ['203.0.113.1'], externalLocal: true } as const;
  const handsOver = (endpoints: readonly SliceEndpoint[], scope = 'outside', more: Partial<NodeContext> = {}) =>
    find(derive(service, endpoints, more), 'LoadBalancer', scope)!.handsOver === true;
  assert.equal(handsOver([near(1, ending), far(1)]), true);
  assert.equal(handsOver([near(1, ending), near(2), far(1)]), false, 'a ready one is here');
  assert.equal(handsOver([near(1, ending), far(1, ending)]), false, 'nobody is ready');
  assert.equal(handsOver([near(1, ending)]), false);
  assert.equal(handsOver([far(1)]), false, 'nobody serves here');
  assert.equal(handsOver([near(1, ending), far(1)], 'inside'), false);
  assert.equal(handsOver([near(1, ending), far(1)], 'outside', { inMaintenance: (a) => a === far(1).address }), false);
  const all = derive({ ...service, externalLocal: false }, [near(1, ending), far(1)]);
  assert.ok(all.frontends.every((row) => row.handsOver !== true));
});
