import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary, toJson } from '@bufbuild/protobuf';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { compileFieldMask } from './field-mask.ts';

const long = 'x'.repeat(300);
const whole = create(FlowSchema, {
  time: { seconds: 1_700_000_000n, nanos: 5 },
  source: {
    ID: 3,
    identity: 300,
    podName: 'web',
    labels: ['a=b', long],
    workloads: [{ kind: 'Deployment', name: long }],
  },
  l4: { protocol: { case: 'TCP', value: { sourcePort: 1, destinationPort: 80, flags: { SYN: true } } } },
  ingressAllowedBy: [{ name: 'one', kind: 'K' }, { name: 'two' }],
  isReply: true,
  socketCookie: 2n ** 63n,
  Summary: 'said',
});
const l4 = { TCP: { source_port: 1, destination_port: 80, flags: { SYN: true } } };

for (const [paths, expected] of [
  [['Summary'], { Summary: 'said' }],
  [['source.pod_name', 'source.ID'], { source: { ID: 3, pod_name: 'web' } }],
  [['source.labels'], { source: { labels: ['a=b', long] } }],
  [['source.workloads.name'], { source: { workloads: [{ name: long }] } }],
  [['l4', 'l4.TCP.flags', 'time.nanos'], { time: '1970-01-01T00:00:00.000000005Z', l4 }],
  [['l4.TCP.flags'], { l4: { TCP: { flags: { SYN: true } } } }],
  [['ingress_allowed_by.name'], { ingress_allowed_by: [{ name: 'one' }, { name: 'two' }] }],
  [['is_reply', 'socket_cookie'], { is_reply: true, socket_cookie: '9223372036854775808' }],
  [['destination.pod_name'], {}],
] as [string[], Record<string, unknown>][]) {
  test(`a mask of ${paths.join(', ')} keeps that and nothing else`, () => {
    const mask = compileFieldMask(FlowSchema, paths);
    assert.ok('masking' in mask);
    const kept = fromBinary(FlowSchema, mask.masking(toBinary(FlowSchema, whole)));
    assert.deepEqual(toJson(FlowSchema, kept, { useProtoFieldName: true }), expected);
  });
}

test('a path that a flow does not have is named', () => {
  assert.deepEqual(compileFieldMask(FlowSchema, ['source.pod_name', 'source.none']), { unknown: 'source.none' });
});
