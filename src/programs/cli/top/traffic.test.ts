import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromJson, type JsonObject } from '@bufbuild/protobuf';
import { anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { createTrafficMeter } from './traffic.ts';

/** A flow at `second`: a beginning, or with `more` a report. */
function flow(second: number, more?: JsonObject, over: object = {}) {
  return create(FlowSchema, {
    time: { seconds: BigInt(second), nanos: 0 },
    verdict: 1,
    nodeName: 'node1',
    IP: { source: '10.0.0.1', destination: '10.0.0.2' },
    l4: { protocol: { case: 'TCP', value: { sourcePort: 1000, destinationPort: 80 } } },
    traceReason: more === undefined ? 1 : 3,
    ...(more && { extensions: anyPack(StructSchema, fromJson(StructSchema, more)) }),
    ...over,
  });
}
const report = (bytes: number, seconds: number, end = false) => ({
  report: end ? 'end' : 'active',
  bytes_sent: bytes,
  bytes_received: 10,
  packets_sent: 2,
  packets_received: 1,
  duration_ms: seconds * 1000,
  ...(end && { rtt_us: 300 }),
});
const other = { nodeName: 'node2' };

test('a connection is counted once, and its bytes as they come', () => {
  const meter = createTrafficMeter(100_000);
  const adds = (...given: Parameters<typeof flow>) => meter.measure(flow(...given));
  assert.deepEqual(adds(101), { bytes: 0, packets: 0, connections: 1, drops: 0 });
  assert.equal(adds(101), undefined, 'the other end of the same node');
  assert.equal(adds(101, undefined, other), undefined, 'the other node');
  assert.deepEqual(adds(106, report(100, 5)), { bytes: 110, packets: 3, connections: 0, drops: 0 });
  assert.equal(adds(106, report(100, 5), other), undefined);
  assert.deepEqual(adds(108, report(150, 7, true)), { bytes: 50, packets: 0, connections: 0, drops: 0, rttUs: 300 });
  assert.equal(adds(108, report(150, 7, true), other), undefined, 'the other node’s last word comes late');
  assert.equal(adds(109)?.connections, 1, 'the ports are used again');
});

test('of an older connection the first report says what to count from', () => {
  const meter = createTrafficMeter(100_000);
  assert.equal(meter.measure(flow(101, report(1_000_000, 60))), undefined);
  assert.equal(meter.measure(flow(106, report(1_000_500, 65)))?.bytes, 500);
});

test('a connection whose beginning was missed is counted whole when it is new', () => {
  const meter = createTrafficMeter(100_000);
  assert.deepEqual(meter.measure(flow(103, report(90, 1, true))), {
    bytes: 100,
    packets: 3,
    connections: 1,
    drops: 0,
    rttUs: 300,
  });
});

test('drops count with those that were not reported', () => {
  const meter = createTrafficMeter(0);
  assert.equal(meter.measure(flow(1, undefined, { verdict: 2 }))?.drops, 1);
  assert.equal(meter.measure(flow(1, { reports_held_back: 7 }, { verdict: 2 }))?.drops, 8);
});

test('answers of DNS and ICMP add nothing of their own', () => {
  const meter = createTrafficMeter(0);
  assert.equal(meter.measure(flow(1, undefined, { l7: { record: { case: 'dns', value: {} } } })), undefined);
  assert.equal(meter.measure(flow(1, undefined, { l4: { protocol: { case: 'ICMPv4', value: {} } } })), undefined);
});
