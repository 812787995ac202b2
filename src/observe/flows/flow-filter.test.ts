import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { FlowFilterSchema } from '../../../proto/gen/flow/flow_pb.js';
import { DropReason, EventType } from '../../kernel/datapath.gen.ts';
import { FilterError } from './filter-values.ts';
import { compileFilter, compileFilters } from './flow-filter.ts';
import { parseLabelSelector } from './label-selector.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const { web, web6, db, far } = addresses;

/** Flow 0: web → db EGRESS; 1: the same INGRESS; 2: cart → db UDP denied; 3: web → world by IPv6, answered with RST. */
const scene = createScene();
scene.record(
  makeEvent({ from: web, to: db, identity: [256, 257], sport: 1000, dport: 5432 }),
  makeEvent({
    from: far,
    to: db,
    identity: [258, 257],
    sport: 2000,
    dport: 53,
    protocol: 17,
    type: EventType.EVENT_DROP,
    reason: DropReason.DROP_POLICY_DENIED,
    direction: 1,
  }),
  makeEvent({
    from: web6,
    to: 'fd99::1',
    identity: [256, 10],
    sport: 3000,
    dport: 443,
    tcpFlags: Uint8Array.from([6, 0]),
  }),
);

const labelsOfNode = ['k8s:kubernetes.io/arch=amd64', 'k8s:zone=a'];
const context = {
  ...scene.context,
  nodeLabels: () => labelsOfNode,
  deviceName: (ifindex: number) => `eth${ifindex}`,
};

function matching(filter: MessageInitShape<typeof FlowFilterSchema>): number[] {
  const match = compileFilter(create(FlowFilterSchema, filter), context);
  return scene.rows().flatMap((row) => (match(row) ? [row.seq] : []));
}

for (const [name, filter, expected] of [
  ['nothing', {}, [0, 1, 2, 3]],
  ['source_ip', { sourceIp: [web] }, [0, 1]],
  ['source_ip as a block', { sourceIp: ['10.244.1.0/24', 'fd44::/64'] }, [2, 3]],
  ['destination_ip', { destinationIp: ['fd99::/16'] }, [3]],
  ['source_pod by namespace and prefix', { sourcePod: ['shop/web'] }, [0, 1, 3]],
  ['destination_pod by namespace', { destinationPod: ['shop/'] }, [0, 1, 2]],
  ['source_pod in any namespace', { sourcePod: ['/cart'] }, [2]],
  ['source_pod without a namespace means default', { sourcePod: ['web'] }, []],
  ['source_label', { sourceLabel: ['app=web'] }, [0, 1, 3]],
  ['source_label in a set', { sourceLabel: ['k8s:app in (cart, other)'] }, [2]],
  ['destination_label of the world', { destinationLabel: ['reserved:world'] }, [3]],
  ['source_workload', { sourceWorkload: [{ name: 'web', kind: 'Deployment' }] }, [0, 1, 3]],
  ['source_workload of another kind', { sourceWorkload: [{ name: 'web', kind: 'DaemonSet' }] }, []],
  ['source_identity', { sourceIdentity: [258] }, [2]],
  ['destination_identity', { destinationIdentity: [257, 10] }, [0, 1, 2, 3]],
  ['destination_identity of the world in either family', { destinationIdentity: [2] }, [3]],
  ['source_port', { sourcePort: ['1000'] }, [0, 1]],
  ['destination_port in a range', { destinationPort: ['50-500'] }, [2, 3]],
  ['destination_service matches none', { destinationService: ['shop/db'] }, []],
  ['verdict', { verdict: [2] }, [2]],
  ['drop_reason_desc', { dropReasonDesc: [133] }, [2]],
  ['traffic_direction', { trafficDirection: [2] }, [0, 3]],
  ['protocol', { protocol: ['UDP', 'sctp'] }, [2]],
  ['protocol within another: flows have none of HTTP', { protocol: ['http', 'dns'] }, []],
  ['reply', { reply: [true] }, []],
  ['tcp_flags', { tcpFlags: [{ SYN: true, RST: true }] }, [3]],
  ['node_name', { nodeName: ['node*'] }, [0, 1, 2, 3]],
  ['node_name with a cluster', { nodeName: ['default/*1'] }, [0, 1, 2, 3]],
  ['node_name of another', { nodeName: ['other/node1', 'node2'] }, []],
  ['ip_version', { ipVersion: [2] }, [3]],
  ['uuid', { uuid: ['01234567-89ab-8cde-8000-000000000001'] }, [1]],
  ['event_type', { eventType: [{ type: 1 }] }, [2]],
  ['event_type with a sub type', { eventType: [{ type: 4, matchSubType: true, subType: 0 }] }, [1]],
  ['source_fqdn', { sourceFqdn: ['api.example.com'] }, []],
  ['http_path: flows carry none', { httpPath: ['/'] }, []],
  ['http_status_code', { httpStatusCode: ['404'] }, []],
  ['http_header', { httpHeader: [{ key: 'a', value: 'b' }] }, []],
  ['interface', { interface: [{ name: 'eth101' }] }, [0, 1, 2, 3]],
  ['interface of another name', { interface: [{ name: 'eth0' }] }, []],
  ['interface by number', { interface: [{ index: 101 }] }, [0, 1, 2, 3]],
  ['interface by number and name: both must match', { interface: [{ index: 101, name: 'eth0' }] }, []],
  ['trace_id', { traceId: ['4bf92f3577b34da6a3ce929d0e0e4736'] }, []],
  ['ip_trace_id', { ipTraceId: [1n] }, []],
  ['source_ip_xlated', { sourceIpXlated: ['10.0.0.1'] }, []],
  ['encrypted', { encrypted: [true] }, []],
  ['not encrypted', { encrypted: [false] }, [0, 1, 2, 3]],
  ['node_labels', { nodeLabels: ['kubernetes.io/arch=amd64,zone in (a, b)'] }, [0, 1, 2, 3]],
  ['node_labels of another', { nodeLabels: ['kubernetes.io/arch=arm64'] }, []],
  ['destination_cluster_name: the world is in none', { destinationClusterName: ['default'] }, [0, 1, 2]],
  ['source_cluster_name of another', { sourceClusterName: ['other'] }, []],
  [
    'cel_expression',
    { experimental: { celExpression: ['_flow.verdict == Verdict.DROPPED && _flow.l4.UDP.destination_port == 53'] } },
    [2],
  ],
  ['one of two expressions', { experimental: { celExpression: ['false', '_flow.is_reply'] } }, []],
  [
    'cel_expression over labels',
    { experimental: { celExpression: ['_flow.source.labels.exists(l, l.matches("app=(cart|db)$"))'] } },
    [2],
  ],
  ['two fields: both must match', { sourcePod: ['shop/web'], destinationPort: ['443'] }, [3]],
] as const) {
  test(`compileFilter() by ${name}`, () =>
    assert.deepEqual(matching(filter as unknown as MessageInitShape<typeof FlowFilterSchema>), expected));
}

test('compileFilters() takes what one of the whitelist matches and none of the blacklist', () => {
  const of = (...filters: MessageInitShape<typeof FlowFilterSchema>[]) =>
    filters.map((each) => create(FlowFilterSchema, each));
  const match = compileFilters(
    of({ protocol: ['udp'] }, { sourcePort: ['1000'] }),
    of({ trafficDirection: [2] }),
    scene.context,
  );
  assert.deepEqual(scene.rows().map(match), [false, true, true, false]);
});

for (const [field, filter] of [
  ['source_fqdn', { sourceFqdn: [`${'a*'.repeat(400)}`] }],
  ['http_path', { httpPath: ['['] }],
  ['http_url', { httpUrl: ['(?<=a)b'] }],
  ['http_status_code', { httpStatusCode: ['nine'] }],
  ['dns_query', { dnsQuery: ['('] }],
  ['dns_query', { dnsQuery: ['a'.repeat(2000)] }],
  ['dns_query', { dnsQuery: ['((a{100}){100}){100}'] }],
  ['node_labels', { nodeLabels: ['a in (b'] }],
  ['source_ip_xlated', { sourceIpXlated: ['10.0.0.300'] }],
  ['experimental.cel_expression', { experimental: { celExpression: ['1 +'] } }],
  ['experimental.cel_expression', { experimental: { celExpression: ['_flow.nothing == 1'] } }],
  ['experimental.cel_expression', { experimental: { celExpression: ['_flow.node_name'] } }],
  ['experimental.cel_expression', { experimental: { celExpression: ['other == 1'] } }],
  ['experimental.cel_expression', { experimental: { celExpression: [`${' '.repeat(5000)}true`] } }],
  ['source_ip', { sourceIp: ['10.0.0.300'] }],
  ['destination_ip', { destinationIp: ['10.0.0.0/33'] }],
  ['destination_port', { destinationPort: ['99999'] }],
  ['source_port', { sourcePort: ['9-1'] }],
  ['protocol', { protocol: ['smtp'] }],
  ['protocol', { protocol: ['constructor'] }],
  ['source_label', { sourceLabel: ['app in (a'] }],
] as const) {
  test(`compileFilter() refuses what it cannot honour: ${field} ${JSON.stringify(filter)}`, () => {
    assert.throws(
      () => matching(filter as unknown as MessageInitShape<typeof FlowFilterSchema>),
      (error) => error instanceof FilterError && error.message.startsWith(field),
    );
  });
}

test('compileFilter() matches node patterns of many stars at once', () => {
  const started = performance.now();
  assert.throws(
    () => compileFilter(create(FlowFilterSchema, { nodeName: [`${'*a'.repeat(5000)}b`] }), scene.context),
    FilterError,
  );
  compileFilter(create(FlowFilterSchema, { nodeName: [`${'*a'.repeat(200)}b`] }), {
    ...scene.context,
    nodeName: 'a'.repeat(250),
  });
  assert.ok(performance.now() - started < 1000);
});

test('compileFilter() by names: `*` for any characters, letters of either case, with or without the final dot', () => {
  const [row] = scene.rows();
  const named = { ...row!, destinationNames: ['Api.Example.com.', 'cdn.example.net'] };
  const matches = (...destinationFqdn: string[]) =>
    compileFilter(create(FlowFilterSchema, { destinationFqdn }), context)(named);
  for (const name of ['api.example.com', 'API.example.com.', '*.example.com', 'cdn.*', '*'])
    assert.equal(matches(name), true, name);
  for (const name of ['example.com', '*.example.org', 'api.example.com.*', ''])
    assert.equal(matches(name), false, name);
});

test('compileFilter() by dns_query: a pattern that matches anywhere in the name asked for', () => {
  const [row] = scene.rows();
  const dns = {
    response: false,
    query: 'api.example.com.',
    types: ['A'],
    rcode: 0,
    addresses: [],
    cnames: [],
    recordTypes: [],
    ttl: 0,
    latencyNs: 0,
  };
  const matches = (dnsQuery: string[], asked: typeof dns | undefined = dns) =>
    compileFilter(create(FlowFilterSchema, { dnsQuery }), context)({ ...row!, dns: asked });
  assert.deepEqual(
    [['example'], ['^api\\.'], ['^example'], ['x', 'com\\.$']].map((each) => matches(each)),
    [true, true, false, true],
  );
  assert.equal(compileFilter(create(FlowFilterSchema, { dnsQuery: ['.*'] }), context)(row!), false);
  const byProtocol = compileFilter(create(FlowFilterSchema, { protocol: ['DNS'] }), context);
  assert.deepEqual([byProtocol({ ...row!, dns }), byProtocol(row!)], [true, false]);
});

test('compileFilters() takes only so many expressions and patterns', () => {
  const filters = Array.from({ length: 65 }, () => create(FlowFilterSchema, { dnsQuery: ['a'] }));
  assert.throws(() => compileFilters(filters, [], context), FilterError);
});

const labels = ['k8s:app=web', 'k8s:tier=front', 'reserved:host'];
for (const [text, expected] of [
  ['app=web', true],
  ['k8s:app == web', true],
  ['other:app=web', false],
  ['app!=web', false],
  ['gone!=x', true],
  ['app in (web, db), tier', true],
  ['app notin (web)', false],
  ['!gone', true],
  ['reserved:host', true],
  ['app=web,tier=back', false],
] as const) {
  test(`parseLabelSelector() ${text}`, () => {
    const selector = parseLabelSelector(text);
    assert.ok(selector.ok);
    assert.equal(selector.value(labels), expected);
  });
}

for (const text of ['', ',', 'app in web', 'a b', 'app in (a', 'app=(', 'x'.repeat(5000)]) {
  test(`parseLabelSelector() refuses ${JSON.stringify(text.slice(0, 20))}`, () =>
    assert.equal(parseLabelSelector(text).ok, false));
}
