import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import type { FlowRow } from '../flows/flow-row.ts';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import { flowJson, type JsonObject, timeText } from './flow-json.ts';

const byte = fc.integer({ min: 0, max: 255 });
const process = {
  execId: 'x',
  pid: 7,
  uid: 0,
  binary: '/bin/curl',
  arguments: '-s',
  cwd: '/',
  startMs: 0,
  execMs: 0,
  exit: undefined,
  parent: undefined,
  container: undefined,
};
const dns = fc.record({
  response: fc.boolean(),
  query: fc.constantFrom('', 'a.example.'),
  types: fc.constantFrom([], ['A', 'AAAA']),
  rcode: fc.integer({ min: 0, max: 5 }),
  addresses: fc.constantFrom([], ['192.0.2.1']),
  cnames: fc.constantFrom([], ['b.example.']),
  recordTypes: fc.constantFrom([], ['A']),
  ttl: fc.nat(100),
  latencyNs: fc.nat(1_000_000),
});

test('flowJson() is the JSON of the message, with its extensions as plain fields', () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(
      fc.constantFrom(EventType.EVENT_NEW, EventType.EVENT_DROP, EventType.EVENT_ACTIVE, EventType.EVENT_END),
      fc.constantFrom(6, 17, 1, 58, 132, 47),
      fc.constantFrom(addresses.web, addresses.host, addresses.world),
      fc.constantFrom(addresses.db, addresses.far, addresses.world, addresses.host),
      fc.record({ reason: byte, direction: fc.nat(2), flags: byte, icmpType: byte, icmpCode: byte }),
      fc.tuple(byte, byte),
      fc.constantFrom([0, 0], [7, 0], [0, 8], [7, 8]),
      fc.record({
        suppressed: fc.nat(3),
        ifindex: fc.constantFrom(0, 1, 101),
        nanos: fc.constantFrom(0, 5_000_000, 123_456_789, 1_000, 999_999_999),
        sourceNames: fc.constantFrom([], ['a.example.']),
        destinationNames: fc.constantFrom([], ['b.example.']),
        sourceProcess: fc.constantFrom(undefined, process),
        destinationService: fc.constantFrom(undefined, { namespace: 'shop', name: 'db' }),
        closedBy: fc.nat(2),
        reply: fc.boolean(),
        tcp: fc.constantFrom(undefined, { handshakeUs: 0, rttUs: 5, minRttUs: 4, retransmits: 1 }),
        dns: fc.option(dns, { nil: undefined, freq: 4 }),
      }),
      (type, protocol, from, to, event, [sent, answered], cookie, rest) => {
        const scene = createScene(4);
        scene.record(
          makeEvent({
            type,
            protocol,
            from,
            to,
            ...event,
            tcpFlags: Uint8Array.from([sent, answered]),
            cookie,
          } as never),
        );
        if (scene.ring.next === 0) return;
        const row = { ...scene.ring.get(0), ...rest } as FlowRow;
        const message = scene.message(row);
        const extensions = message.extensions && anyUnpack(message.extensions, StructSchema);
        message.extensions = undefined;
        const expected = toJson(FlowSchema, message, { useProtoFieldName: true }) as JsonObject;
        if (extensions) Object.assign(expected, toJson(StructSchema, extensions));
        assert.deepEqual(JSON.parse(JSON.stringify(flowJson(row, scene.context))), expected);
        for (const name of Object.keys(expected)) seen.add(name);
      },
    ),
    { numRuns: 400 },
  );
  for (const name of [
    'egress_allowed_by',
    'drop_reason_desc',
    'l7',
    'report',
    'source_process',
    'interface',
    'rtt_us',
    'reply',
  ])
    assert.ok(seen.has(name), `no flow had ${name}`);
});

test('flowJson() says the address that a packet claimed, and what staged policies would deny', () => {
  const scene = createScene(4);
  scene.record(makeEvent({ from: addresses.web, to: addresses.db, flags: EventFlags.EVENT_STAGED_INGRESS_DENY }));
  const flow = flowJson({ ...scene.ring.get(0), sourceAddress: '192.0.2.9' }, scene.context);
  assert.equal((flow.IP as JsonObject).source, '192.0.2.9');
  assert.deepEqual(flow.staged_denied, ['ingress']);
});

test('timeText() has as many digits as are needed', () => {
  assert.deepEqual(
    [0, 120_000_000, 120_000, 1].map((nanos) => timeText(0, nanos)),
    [
      '1970-01-01T00:00:00Z',
      '1970-01-01T00:00:00.120Z',
      '1970-01-01T00:00:00.000120Z',
      '1970-01-01T00:00:00.000000001Z',
    ],
  );
});
