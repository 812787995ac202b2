import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EndpointSliceObject, parseService, parseServiceSlice, type ServiceObject } from './parse-service.ts';

type Spec = NonNullable<ServiceObject['spec']>;

const service = (
  spec: Spec,
  more: Partial<ServiceObject['metadata']> = {},
  ingress: { ip?: string; ipMode?: string }[] = [],
) =>
  parseService({
    metadata: { name: 'web', namespace: 'shop', uid: 'u', creationTimestamp: '2026-01-01T00:00:00Z', ...more },
    spec: { clusterIP: '10.96.0.10', ...spec },
    status: { loadBalancer: { ingress } },
  });

const slice = (object: Partial<EndpointSliceObject>, more: Partial<ServiceObject['metadata']> = {}) =>
  parseServiceSlice({
    metadata: { name: 'web-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' }, ...more },
    addressType: 'IPv4',
    ...object,
  });

test('parseService() fills in what Kubernetes leaves out', () => {
  const row = service({ ports: [{ port: 80 }] })!;
  assert.equal(row.key, 'shop/web');
  assert.equal(row.type, 'ClusterIP');
  assert.deepEqual(row.clusterIps, ['10.96.0.10']);
  assert.deepEqual(row.ports, [{ name: '', protocol: 'TCP', port: 80, nodePort: undefined }]);
  assert.equal(row.affinitySeconds, undefined);
  assert.equal(row.sourceRanges, undefined);
  assert.deepEqual(row.problems, []);
  assert.equal(service({ sessionAffinity: 'ClientIP' })!.affinitySeconds, 10_800);
  assert.deepEqual(service({ clusterIPs: [] })!.clusterIps, ['10.96.0.10']);
  assert.deepEqual(service({ clusterIPs: ['10.96.0.10', 'FD00:96::A'] })!.clusterIps, ['10.96.0.10', 'fd00:96::a']);
});

test('parseService() leaves out what has no frontends of ours', () => {
  assert.equal(service({ clusterIP: 'None' }), undefined);
  assert.equal(service({ clusterIP: '' }), undefined);
  assert.equal(service({ type: 'ExternalName', clusterIP: undefined }), undefined);
  for (const label of ['service.kubernetes.io/service-proxy-name', 'service.kubernetes.io/headless'])
    assert.equal(service({}, { labels: { [label]: '' } }), undefined, label);
});

for (const [address, why] of [
  ['127.0.0.1', /loopback/],
  ['0.0.0.0', /unspecified/],
  ['0.1.2.3', /this network/],
  ['169.254.169.254', /metadata/],
  ['224.0.0.1', /multicast/],
  ['255.255.255.255', /multicast or reserved/],
  ['::', /unspecified/],
  ['::1', /loopback/],
  ['fe80::1', /link-local/],
  ['ff02::1', /multicast/],
  ['::ffff:127.0.0.1', /mixes/],
  ['::ffff:7f00:1', /IPv4 written as IPv6/],
  ['fd00:ec2::254', /metadata/],
  ['010.0.0.1', /./],
  ['not an address', /./],
  ['10.0.0.0/8', /./],
] as const) {
  test(`parseService() ignores ${address} as an external or load balancer address and says so`, () => {
    const row = service({ type: 'LoadBalancer', externalIPs: [address, '198.51.100.1'] }, {}, [{ ip: address }])!;
    assert.deepEqual(row.externalIps, ['198.51.100.1']);
    assert.deepEqual(row.loadBalancerIps, []);
    assert.equal(row.problems.length, 2);
    for (const problem of row.problems) {
      assert.ok(problem.includes(address), problem);
      assert.match(problem, why);
    }
  });

  test(`parseServiceSlice() ignores the endpoint ${address} and says so`, () => {
    const good = address.includes(':') ? 'fd00::1' : '10.0.0.1';
    const row = slice({
      addressType: address.includes(':') ? 'IPv6' : 'IPv4',
      endpoints: [{ addresses: [address] }, { addresses: [good] }],
    })!;
    assert.deepEqual(row.addresses, [good]);
    assert.match(row.problems.join(), why);
  });
}

test('parseService() takes load balancer addresses only for type LoadBalancer, and not those of a proxy', () => {
  const ingress = [
    { ip: '198.51.100.1' },
    { ip: '198.51.100.2', ipMode: 'Proxy' },
    { ip: '198.51.100.3', ipMode: 'VIP' },
    {},
  ];
  assert.deepEqual(service({ type: 'LoadBalancer' }, {}, ingress)!.loadBalancerIps, ['198.51.100.1', '198.51.100.3']);
  assert.deepEqual(service({ type: 'NodePort' }, {}, ingress)!.loadBalancerIps, []);
});

test('parseService() lets nobody in when no source range can be read', () => {
  const ranges = (list: string[]) => service({ type: 'LoadBalancer', loadBalancerSourceRanges: list })!;
  assert.deepEqual(ranges(['10.1.0.0/16 ', 'bad']).sourceRanges, ['10.1.0.0/16']);
  assert.deepEqual(ranges(['bad', '10.0.0.1']).sourceRanges, []);
  assert.equal(ranges(['bad', '10.0.0.1']).problems.length, 2);
  assert.equal(ranges([]).sourceRanges, undefined);
});

test('parseService() ignores an external traffic policy where nothing is external, and unknown protocols and algorithms', () => {
  assert.equal(service({ externalTrafficPolicy: 'Local' })!.externalLocal, false);
  assert.equal(service({ externalTrafficPolicy: 'Local', type: 'NodePort' })!.externalLocal, true);
  const row = service(
    { ports: [{ port: 1, protocol: 'ICMP' }] },
    { annotations: { 'weir.dev/lb-algorithm': 'best' } },
  )!;
  assert.deepEqual(row.ports, []);
  assert.equal(row.algorithm, undefined);
  assert.equal(row.problems.length, 2);
});

test('parseServiceSlice() reads null and missing conditions as Kubernetes means them', () => {
  const row = slice({
    endpoints: [
      { addresses: ['10.0.0.1'] },
      { addresses: ['10.0.0.2'], conditions: { ready: null, serving: null, terminating: null } },
      { addresses: ['10.0.0.3'], conditions: { ready: false } },
      { addresses: ['10.0.0.4'], conditions: { ready: false, serving: true, terminating: true } },
    ],
  })!;
  assert.deepEqual(
    row.facts.map(({ ready, serving, terminating }) => [ready, serving, terminating]),
    [
      [true, true, false],
      [true, true, false],
      [false, false, false],
      [false, true, true],
    ],
  );
});

test('parseServiceSlice() ignores endpoints of the other family, names, and slices of nobody', () => {
  assert.match(slice({ endpoints: [{ addresses: ['fd00::1'] }] })!.problems.join(), /family/);
  assert.match(slice({ addressType: 'IPv6', endpoints: [{ addresses: ['10.0.0.1'] }] })!.problems.join(), /family/);
  assert.equal(slice({ addressType: 'FQDN', endpoints: [{ addresses: ['example.org'] }] }), undefined);
  assert.equal(slice({}, { labels: {} }), undefined);
  assert.equal(slice({}, { labels: { 'kubernetes.io/service-name': '' } }), undefined);
});

test('parseServiceSlice() takes empty lists, null lists, endpoints without address and ports without number', () => {
  for (const nothing of [undefined, null, []]) {
    const row = slice({ endpoints: nothing, ports: nothing as undefined })!;
    assert.deepEqual([row.addresses, row.facts, row.ports, row.problems], [[], [], [], []]);
  }
  const row = slice({
    endpoints: [{}, { addresses: [] }],
    ports: [{ name: 'all' }, { port: 1, protocol: 'ICMP' }, { port: 2 }],
  })!;
  assert.deepEqual(row.addresses, []);
  assert.deepEqual(row.ports, [{ name: '', protocol: 'TCP', port: 2 }]);
});

for (const [text, weight, problems] of [
  ['0', 0, 0],
  ['256', 256, 0],
  ['257', 1, 1],
  ['-1', 1, 1],
  ['1.5', 1, 1],
  ['', 1, 1],
] as const)
  test(`parseServiceSlice() reads the weight ${JSON.stringify(text)} as ${weight}`, () => {
    const row = slice(
      { endpoints: [{ addresses: ['10.0.0.1'] }] },
      {
        labels: { 'kubernetes.io/service-name': 'web' },
        annotations: { 'weir.dev/weight': text },
      },
    )!;
    assert.equal(row.facts[0]!.weight, weight);
    assert.equal(row.problems.length, problems);
  });
