import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { connectionOf } from './impact.ts';

const IP = { source: '10.0.0.1', destination: '10.0.0.2' };
const tcp = (flags: object) => ({
  protocol: { case: 'TCP' as const, value: { sourcePort: 4000, destinationPort: 80, flags } },
});

test('connectionOf() takes what begins a connection and nothing else', () => {
  const first = create(FlowSchema, { IP, l4: tcp({ SYN: true }) });
  assert.deepEqual(connectionOf(first, 7), {
    source: '10.0.0.1',
    destination: '10.0.0.2',
    sourcePort: 4000,
    protocol: 6,
    port: 80,
    timeMs: 7,
  });
  assert.equal(connectionOf(create(FlowSchema, { IP, l4: tcp({ ACK: true }) }), 0), undefined);
  assert.equal(connectionOf(create(FlowSchema, { IP, l4: tcp({ SYN: true }), isReply: true }), 0), undefined);
  const ping = create(FlowSchema, { IP, l4: { protocol: { case: 'ICMPv6', value: { type: 128 } } } });
  assert.deepEqual([connectionOf(ping, 0)?.protocol, connectionOf(ping, 0)?.port], [58, 128]);
});
