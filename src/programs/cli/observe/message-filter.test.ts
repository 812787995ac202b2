// What an agent says of its rows and what a command says of the same flows in a file is held together here.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { FlowFilterSchema, FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { GetFlowsRequestSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { createFlowEncoder } from '../../../observe/flows/encode-flow.ts';
import { compileFilter } from '../../../observe/flows/flow-filter.ts';
import { addresses, createScene, makeEvent } from '../../../observe/flows/testdata/scene.ts';
import { compileMessageFilter, compileMessageFilters } from './message-filter.ts';

const scene = createScene(64);
const { web, db, far } = addresses;
scene.record(
  makeEvent({ from: web, to: db }),
  makeEvent({ from: far, to: db, sport: 1 }),
  makeEvent({ from: db, to: far, dport: 443 }),
);
const rows = Array.from({ length: scene.ring.next }, (_, seq) => scene.ring.get(seq));
const encoder = createFlowEncoder(scene.context);
const flows = rows.map((row) => fromBinary(FlowSchema, encoder.flow(row)));

const filters: MessageInitShape<typeof FlowFilterSchema>[] = [
  {},
  { sourcePod: ['shop/cart'] },
  { sourcePod: ['shop/', '/nothing'] },
  { destinationPod: ['/db'] },
  { sourcePod: ['cart'] },
  { sourceIp: [flows[0]!.IP!.source] },
  { destinationIp: ['0.0.0.0/0'] },
  { destinationIp: ['::/0'] },
  { sourceLabel: ['k8s:app=cart'] },
  { destinationLabel: ['reserved:world'] },
  { sourceIdentity: [flows[0]!.source!.identity] },
  { destinationIdentity: [2] },
  { destinationPort: ['443'] },
  { destinationPort: ['5000-6000'] },
  { sourcePort: ['1'] },
  { protocol: ['tcp'] },
  { protocol: ['udp', 'icmp'] },
  { protocol: ['dns'] },
  { verdict: [1] },
  { verdict: [2] },
  { dropReasonDesc: [133] },
  { trafficDirection: [1] },
  { trafficDirection: [2] },
  { eventType: [{ type: 4 }] },
  { eventType: [{ type: 4, matchSubType: true, subType: 0 }] },
  { eventType: [{ type: 1 }] },
  { reply: [false] },
  { reply: [true] },
  { tcpFlags: [{ SYN: true }] },
  { tcpFlags: [{ SYN: true, ACK: true }] },
  { nodeName: ['node1'] },
  { nodeName: ['default/n*'] },
  { nodeName: ['other/'] },
  { ipVersion: [1] },
  { ipVersion: [2] },
  { uuid: [flows[1]!.uuid] },
  { sourceClusterName: ['default'] },
  { destinationFqdn: ['*.example.com'] },
  { sourceWorkload: [{ name: 'cart', kind: '' }] },
  { destinationService: ['shop/'] },
  { dnsQuery: ['.'] },
  { encrypted: [true] },
  { experimental: { celExpression: ['_flow.l4.TCP.destination_port == 443'] } },
  { sourcePod: ['shop/cart'], destinationPort: ['443'] },
];

test('a filter says the same of a row and of its message', () => {
  const kept = new Set<string>();
  for (const init of filters) {
    const filter = create(FlowFilterSchema, init);
    const [ofRow, ofMessage] = [compileFilter(filter, scene.context), compileMessageFilter(filter)];
    const text = JSON.stringify(init, (_, value) => (typeof value === 'bigint' ? String(value) : value));
    assert.deepEqual(flows.map(ofMessage), rows.map(ofRow), text);
    kept.add(String(flows.map(ofMessage)));
  }
  assert.ok(kept.size > 4, 'the filters tell the flows apart');
});

test('what only other programs write is found, too', () => {
  const flow = create(FlowSchema, {
    l7: {
      record: {
        case: 'http',
        value: { code: 404, method: 'GET', url: 'http://web/cart/7?x=1', headers: [{ key: 'Host', value: 'web' }] },
      },
    },
    interface: { name: 'eth0', index: 2 },
    IP: { sourceXlated: '192.0.2.1', encrypted: true },
    traceContext: { parent: { traceId: 'abc' } },
  });
  const is = (init: MessageInitShape<typeof FlowFilterSchema>) =>
    compileMessageFilter(create(FlowFilterSchema, init))(flow);
  for (const init of [
    { httpStatusCode: ['4+'] },
    { httpMethod: ['get'] },
    { httpPath: ['^/cart/\\d+$'] },
    { httpUrl: ['x=1'] },
    { httpHeader: [{ key: 'host', value: 'web' }] },
    { interface: [{ name: 'eth0' }] },
    { sourceIpXlated: ['192.0.2.0/24'] },
    { traceId: ['abc'] },
    { encrypted: [true] },
    { protocol: ['http'] },
  ])
    assert.equal(is(init), true, JSON.stringify(init));
  for (const init of [
    { httpStatusCode: ['405'] },
    { httpMethod: ['PUT'] },
    { httpPath: ['x=1'] },
    { httpHeader: [{ key: 'host', value: 'db' }] },
    { interface: [{ name: 'eth1' }] },
    { traceId: ['abd'] },
  ])
    assert.equal(is(init), false, JSON.stringify(init));
});

test('a request keeps to its times and leaves out what is unwanted', () => {
  const at = (seconds: number) =>
    create(FlowSchema, { time: { seconds: BigInt(seconds), nanos: 5 }, verdict: seconds % 2 });
  const match = compileMessageFilters(
    create(GetFlowsRequestSchema, {
      since: { seconds: 3n, nanos: 5 },
      until: { seconds: 6n, nanos: 5 },
      blacklist: [{ verdict: [1] }],
    }),
  );
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 7, 8].filter((each) => match(at(each))),
    [4, 6],
  );
});

test('what is no filter is refused by its field', () => {
  for (const [init, says] of [
    [{ sourceIp: ['x'] }, /source_ip/],
    [{ destinationPort: ['70000'] }, /destination_port/],
    [{ httpPath: ['('] }, /http_path/],
  ] as const)
    assert.throws(() => compileMessageFilter(create(FlowFilterSchema, init as never)), says);
});
