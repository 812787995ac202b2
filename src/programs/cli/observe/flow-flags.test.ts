import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import { GetFlowsRequestSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { flowRequest, type ObserveOptions, parseTime } from './flow-flags.ts';

const nowMs = Date.UTC(2026, 10, 22, 12);

function request(...flags: string[]) {
  const filters = flags.map((each) => {
    const [, not, flag, value] = /^(!?)([a-z-]+)=(.*)$/.exec(each)!;
    return { flag: flag!, value: value!, not: not === '!' };
  });
  return asked({ filters });
}

function asked(options: ObserveOptions) {
  return toJson(GetFlowsRequestSchema, flowRequest(options, nowMs).request, { useProtoFieldName: true }) as Record<
    string,
    unknown
  >;
}

test('flowRequest() asks for the last 20 unless told otherwise', () => {
  assert.deepEqual(asked({ filters: [] }), { number: '20' });
  assert.deepEqual(asked({ filters: [], last: 5 }), { number: '5' });
  assert.deepEqual(asked({ filters: [], follow: true }), { follow: true });
  assert.deepEqual(asked({ filters: [], first: 3 }), { number: '3', first: true });
  assert.deepEqual(asked({ filters: [], all: true }), {});
  assert.deepEqual(asked({ filters: [], since: '5m' }), { since: '2026-11-22T11:55:00Z' });
});

test('flowRequest() makes alternatives of one kind, and a filter of two kinds', () => {
  assert.deepEqual(request('verdict=dropped', 'from-namespace=shop').whitelist, [
    { source_pod: ['shop/'], verdict: ['DROPPED'] },
  ]);
  assert.deepEqual(request('verdict=dropped', 'verdict=forwarded').whitelist, [
    { verdict: ['DROPPED'] },
    { verdict: ['FORWARDED'] },
  ]);
  assert.deepEqual(request('namespace=shop').whitelist, [{ source_pod: ['shop/'] }, { destination_pod: ['shop/'] }]);
  assert.deepEqual(request('from-identity=world').whitelist, [{ source_identity: [2, 9, 10] }]);
});

test('flowRequest() joins two conditions on the same end into the narrower one', () => {
  assert.deepEqual(request('from-namespace=shop', 'from-pod=shop/web').whitelist, [{ source_pod: ['shop/web'] }]);
  assert.deepEqual(request('from-label=app=web', 'from-label=tier=x').whitelist, [
    { source_label: ['app=web'] },
    { source_label: ['tier=x'] },
  ]);
  assert.deepEqual(request('label=app=web', 'from-label=tier=x').whitelist, [
    { source_label: ['app=web,tier=x'] },
    { source_label: ['tier=x'], destination_label: ['app=web'] },
  ]);
});

test('flowRequest() joins blocks of addresses and ranges of ports', () => {
  assert.deepEqual(request('from-ip=10.0.0.0/8', 'ip=10.1.0.0/16').whitelist, [
    { source_ip: ['10.1.0.0/16'] },
    { source_ip: ['10.0.0.0/8'], destination_ip: ['10.1.0.0/16'] },
  ]);
  assert.deepEqual(request('to-port=80', 'port=50-100').whitelist, [
    { source_port: ['50-100'], destination_port: ['80'] },
    { destination_port: ['80'] },
  ]);
});

test('flowRequest() finds no filter for what can never be, and so asks for nothing', () => {
  assert.throws(
    () => request('from-namespace=shop', 'from-pod=other/web'),
    (error) => error instanceof WeirError && error.code === 'CONFIG_INVALID',
  );
});

for (const [flag, filters] of [
  ['fqdn=*.example.com', [{ source_fqdn: ['*.example.com'] }, { destination_fqdn: ['*.example.com'] }]],
  ['to-fqdn=a.example', [{ destination_fqdn: ['a.example'] }]],
  ['dns-query=^api', [{ dns_query: ['^api'] }]],
  ['node-name=node*', [{ node_name: ['node*'] }]],
  ['node-label=zone in (a, b)', [{ node_labels: ['zone in (a, b)'] }]],
  ['cluster=default', [{ source_cluster_name: ['default'] }, { destination_cluster_name: ['default'] }]],
  ['from-workload=Deployment/web', [{ source_workload: [{ name: 'web', kind: 'Deployment' }] }]],
  ['type=trace:to-endpoint', [{ event_type: [{ type: 4, match_sub_type: true }] }]],
  ['type=l7', [{ event_type: [{ type: 129 }] }]],
  ['protocol=DNS', [{ protocol: ['dns'] }]],
  ['type=drop', [{ event_type: [{ type: 1 }] }]],
  ['interface=eth0', [{ interface: [{ name: 'eth0' }] }]],
  ['snat-ip=10.0.0.0/8', [{ source_ip_xlated: ['10.0.0.0/8'] }]],
  ['encrypted=', [{ encrypted: [true] }]],
  ['trace-id=4bf9', [{ trace_id: ['4bf9'] }]],
  ['ip-trace-id=7', [{ ip_trace_id: ['7'] }]],
  ['http-status=5+', [{ http_status_code: ['5+'] }]],
  ['http-method=get', [{ http_method: ['GET'] }]],
  ['http-path=/a.*', [{ http_path: ['/a.*'] }]],
  ['http-url=x', [{ http_url: ['x'] }]],
  ['http-header=Host: a:1', [{ http_header: [{ key: 'Host', value: 'a:1' }] }]],
  ['cel-expression=true', [{ experimental: { cel_expression: ['true'] } }]],
] as const) {
  test(`flowRequest() --${flag}`, () => assert.deepEqual(request(flag).whitelist, filters));
}

for (const flag of ['type=l9', 'type=trace:nowhere', 'snat-ip=x', 'ip-trace-id=-1', 'http-header=x', 'fqdn= ']) {
  test(`flowRequest() refuses --${flag}`, () => assert.throws(() => request(flag), WeirError));
}

test('flowRequest() puts what --not turns round on the blacklist', () => {
  assert.deepEqual(request('!namespace=kube-system').blacklist, [
    { source_pod: ['kube-system/'] },
    { destination_pod: ['kube-system/'] },
  ]);
  assert.throws(() => asked({ filters: [], trailingNot: true }), WeirError);
});

for (const [flag, value] of [
  ['verdict', 'maybe'],
  ['direction', 'up'],
  ['ip', '10.0.0.300'],
  ['port', '70000'],
  ['protocol', 'smtp'],
  ['identity', 'nobody'],
  ['policy', 'no-slash'],
  ['drop-reason', 'WHY'],
  ['tcp-flags', 'SYN,XXX'],
  ['ip-version', '5'],
  ['namespace', 'a/b'],
] as const) {
  test(`flowRequest() refuses --${flag} ${value} and says what it takes`, () => {
    assert.throws(
      () => request(`${flag}=${value}`),
      (error) => error instanceof WeirError && error.code === 'CONFIG_INVALID' && error.message.includes(`--${flag}`),
    );
  });
}

test('parseTime() reads how long ago, and times', () => {
  assert.equal(parseTime('since', '1h30m', nowMs), nowMs - 90 * 60_000);
  assert.equal(parseTime('since', '1.5s', nowMs), nowMs - 1500);
  assert.equal(parseTime('since', '2026-11-22T11:00:00Z', nowMs), nowMs - 3_600_000);
  for (const bad of ['', '5', '5x', 'yesterday', '5m?']) assert.throws(() => parseTime('since', bad, nowMs), WeirError);
});

test('processes are asked for in extensions, beside what the contract has a field for', () => {
  const filters = [
    { flag: 'process', value: 'curl', not: false },
    { flag: 'process', value: '/bin/*', not: true },
    { flag: 'verdict', value: 'dropped', not: false },
  ];
  const { request: message } = flowRequest({ filters }, nowMs);
  assert.deepEqual(toJson(StructSchema, anyUnpack(message.extensions!, StructSchema)!), {
    process: ['curl'],
    not_process: ['/bin/*'],
  });
  assert.equal(message.whitelist.length, 1);
  assert.equal(flowRequest({ filters: [] }, nowMs).request.extensions, undefined);
  assert.throws(() => request('process= '), /--process/);
});
