import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromJson, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf';
import { anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import { GetFlowsResponseSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { type FlowFormat, flowPrinter } from './flow-text.ts';

const response = (over: object = {}) =>
  create(GetFlowsResponseSchema, {
    nodeName: 'node1',
    time: { seconds: 1n, nanos: 5_000_000 },
    responseTypes: {
      case: 'flow',
      value: {
        time: { seconds: 1n, nanos: 5_000_000 },
        verdict: 1,
        IP: { source: '10.244.0.1', destination: 'fd00::1' },
        l4: { protocol: { case: 'TCP', value: { sourcePort: 43210, destinationPort: 5432 } } },
        source: { identity: 256, namespace: 'shop', podName: 'cart-1' },
        destination: { identity: 10 },
        traceObservationPoint: 101,
        trafficDirection: 1,
        Summary: 'TCP Flags: SYN',
        ...over,
      },
    },
  } as MessageInitShape<typeof GetFlowsResponseSchema>);

const print = (
  format: FlowFormat,
  over: object = {},
  options: Parameters<typeof flowPrinter>[1] = { colors: false, nodeNames: false },
) => flowPrinter(format, options)(response(over)).replace(/\w{3} +\d+ \d\d:\d\d:\d\d\.\d{3}/, 'TIME');
const policy = (name: string, ...labels: string[]) => ({ kind: 'NetworkPolicy', namespace: 'shop', name, labels });

test('compact is one line with both ends and the rule that allowed', () => {
  assert.equal(
    print('compact', { ingressAllowedBy: [policy('db-from-cart', 'k8s:a=b', 'weir:rule=ingress[0]')] }),
    'TIME: shop/cart-1:43210 (id:256) -> [fd00::1]:5432 (world-ipv6) to-endpoint FORWARDED (TCP Flags: SYN) allowed by NetworkPolicy shop/db-from-cart ingress[0]\n',
  );
});

test('compact says of a default deny who isolates, and that no rule matched', () => {
  const denied = {
    verdict: 2,
    dropReasonDesc: 133,
    traceObservationPoint: 0,
    ingressDeniedBy: [policy('default-deny')],
  };
  assert.match(
    print('compact', denied),
    /POLICY_DENIED DROPPED \(TCP Flags: SYN\) denied: ingress isolated by NetworkPolicy shop\/default-deny, no rule matched\n$/,
  );
});

test('compact says what a drop without policy means', () => {
  assert.match(
    print('compact', { verdict: 2, dropReasonDesc: 151 }),
    /STALE_OR_UNROUTABLE_IP DROPPED .* dropped: an address of this node/,
  );
  assert.match(print('compact', { verdict: 2, dropReasonDesc: 251 }), /reason-251 DROPPED/);
});

test('colours and node names are there when asked for', () => {
  const text = print('compact', {}, { colors: true, nodeNames: true });
  assert.ok(text.startsWith('TIME [node1]: ') && text.includes('\u001b[32mFORWARDED\u001b[0m'));
});

test('text formats never let a name break the line', () => {
  const text = print('compact', { source: { podName: 'a\nb\x07', namespace: 'x' } });
  assert.equal(text.split('\n').length, 2);
  assert.ok(!text.includes('\x07'));
});

test('table has a header, dict a block of keys', () => {
  assert.match(print('table'), /^TIMESTAMP +SOURCE +DESTINATION +TYPE +VERDICT +SUMMARY +WHY\n/);
  assert.match(print('dict'), /^ +TIMESTAMP: TIME\n +SOURCE: shop\/cart-1:43210 \(id:256\)\n/);
});

test('json is a line with the contract’s names', () => {
  for (const format of ['json', 'jsonpb'] as const) {
    const line = flowPrinter(format, { colors: false, nodeNames: false })(response());
    const parsed = JSON.parse(line);
    assert.deepEqual(Object.keys(parsed).sort(), ['flow', 'node_name', 'time']);
    assert.equal(parsed.flow.source.pod_name, 'cart-1');
    assert.equal(parsed.flow.l4.TCP.destination_port, 5432);
    assert.equal(line.split('\n').length, 2);
  }
});

test('losses are said in every format', () => {
  const lost = create(GetFlowsResponseSchema, {
    nodeName: 'node1',
    responseTypes: { case: 'lostEvents', value: { source: 1, numEventsLost: 12n } },
  });
  assert.match(
    flowPrinter('compact', { colors: false, nodeNames: false })(lost),
    /\[node1\]: EVENTS LOST: 12 because the kernel/,
  );
  const untold = create(GetFlowsResponseSchema, { responseTypes: { case: 'lostEvents', value: {} } });
  assert.match(flowPrinter('compact', { colors: false, nodeNames: false })(untold), /: FLOWS MAY BE MISSING\n$/);
  assert.deepEqual(JSON.parse(flowPrinter('json', { colors: false, nodeNames: false })(lost)).lost_events, {
    source: 'PERF_EVENT_RING_BUFFER',
    num_events_lost: '12',
  });
});

test('a flow through a Service names it before the backend that it got', () => {
  const over = { destinationService: { namespace: 'shop', name: 'web' } };
  assert.match(print('compact', over), /\(id:256\) -> svc shop\/web -> \[fd00::1\]:5432 \(world-ipv6\) to-endpoint/);
  assert.match(print('dict', over), / +SERVICE: shop\/web\n/);
  assert.match(
    print('compact', { sourceService: { namespace: 'shop', name: 'web' } }),
    /\(id:256\) as svc shop\/web -> /,
  );
});

const withMore = (more: JsonObject) => ({ extensions: anyPack(StructSchema, fromJson(StructSchema, more)) });
const curl = { binary: '/usr/bin/curl', pid: 4711, arguments: 'http://db', exec_id: 'abc' };

test('json has the facts of extensions as fields, jsonpb only where the contract has them', () => {
  const flowOf = (format: FlowFormat) =>
    JSON.parse(print(format, withMore({ source_process: curl, rtt_us: 250, report: 'end', verdict: 'none' }))).flow;
  const json = flowOf('json');
  assert.deepEqual([json.source_process, json.rtt_us, json.report], [curl, 250, 'end']);
  assert.equal(json.verdict, 'FORWARDED', 'a field of the contract stays what it is');
  assert.deepEqual(json.extensions.value.source_process, curl);
  const jsonpb = flowOf('jsonpb');
  assert.equal(jsonpb.source_process, undefined);
  assert.equal(jsonpb.extensions.value.rtt_us, 250);
});

test('processes stand behind their end, with arguments in a dict', () => {
  const more = withMore({ source_process: curl });
  const options = { colors: false, nodeNames: false, processes: true };
  assert.match(
    print('compact', more, options),
    /cart-1:43210 \(id:256\) curl\[4711\] -> \[fd00::1\]:5432 \(world-ipv6\) to/,
  );
  assert.match(print('table', more, options), /cart-1:43210 \(id:256\) curl\[4711\] /);
  assert.doesNotMatch(print('compact', more), /curl/);
  assert.match(print('dict', more), / SOURCE: .*\n +PROCESS: curl\[4711\] http:\/\/db\n +DESTINATION: /);
});

test('no format lets a name steer the terminal, with colours or without', () => {
  const steer = '\u001b[2J\u009b\u202e';
  const more = {
    source: { podName: `a${steer}`, namespace: 'x' },
    Summary: steer,
    ...withMore({ source_process: { ...curl, binary: `/tmp/${steer}`, arguments: steer } }),
  };
  for (const colors of [false, true])
    for (const format of ['compact', 'table', 'dict'] as const) {
      const text = print(format, more, { colors, nodeNames: true, processes: true });
      const own = [1, 31, 32, 33, 0].reduce((rest, code) => rest.replaceAll(`\u001b[${code}m`, ''), text);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: just those
      assert.doesNotMatch(own, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/, format);
    }
});
