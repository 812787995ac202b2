import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  create,
  createRegistry,
  fromBinary,
  fromJson,
  type MessageInitShape,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { GetFlowsResponseSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { createFlowEncoder } from '../../../observe/flows/encode-flow.ts';
import { addresses, createScene, makeEvent } from '../../../observe/flows/testdata/scene.ts';
import { jsonWriter } from './json-text.ts';

const { web, web6, db, far, world, host } = addresses;
const registry = createRegistry(StructSchema);
const write = jsonWriter(GetFlowsResponseSchema);
const usual = (bytes: Uint8Array) =>
  JSON.stringify(
    toJson(GetFlowsResponseSchema, fromBinary(GetFlowsResponseSchema, bytes), { useProtoFieldName: true, registry }),
  );
const same = (bytes: Uint8Array) => assert.equal(write(bytes), usual(bytes));
const response = (flow: MessageInitShape<typeof FlowSchema>) =>
  toBinary(
    GetFlowsResponseSchema,
    create(GetFlowsResponseSchema, { responseTypes: { case: 'flow', value: create(FlowSchema, flow) } }),
  );

test('jsonWriter() says of flows what the library says', () => {
  const scene = createScene();
  const both = { from: web, to: db, identity: [256, 257], cookie: [0, 7] };
  scene.record(
    makeEvent(both),
    makeEvent({ ...both, type: 2, bytes: [2n ** 40n, 0n], timeNs: 7_000_000_123n }),
    makeEvent({ ...both, type: 3, reason: 1, direction: 2, timeNs: 7_000_001_000n }),
    makeEvent({ ...both, type: 4, reason: 133, direction: 1, cookie: [0, 8], suppressed: 9 }),
    makeEvent({ from: web6, to: 'fd44:1::9', identity: [256, 10], protocol: 58, icmpType: 128 }),
    makeEvent({ from: far, to: world, identity: [258, 9], type: 4, reason: 210, flags: 2 }),
    makeEvent({ from: host, to: db, identity: [1, 257], protocol: 17, timeNs: 8_000_000_000n }),
  );
  const process = {
    execId: 'x',
    pid: 7,
    uid: 0,
    binary: '/usr/bin/cürl "quoted"',
    arguments: 'a\\b\n',
    cwd: '/',
    startMs: 1,
    execMs: 1,
    exit: undefined,
    parent: undefined,
    container: undefined,
  };
  const encoder = createFlowEncoder({ ...scene.context, nodeLabels: () => ['k8s:zone=a'] });
  for (const row of scene.rows())
    for (const sourceProcess of [undefined, process]) {
      const bytes = encoder.response({ ...row, sourceProcess, sourceNames: ['a.example', '“b”'] });
      same(bytes);
      // What was made once is made the same again.
      same(bytes);
    }
});

test('jsonWriter() says what the library says of what no agent writes, too', () => {
  same(new Uint8Array());
  same(response({}));
  same(response({ socketCookie: 2n ** 63n, cgroupId: 2n ** 52n, verdict: 99 as never, isReply: false }));
  same(response({ time: { seconds: 1n, nanos: 5_000_000 } }));
  same(response({ time: { seconds: -1n, nanos: 5 } }));
  same(response({ eventType: { type: -1, subType: 3 } }));
  same(response({ l7: { latencyNs: 5n, record: { case: 'http', value: { code: 200, headers: [{ key: 'a' }] } } } }));
  const members = { one: 1.5, 7: 'digits', list: [1, 'two', null, { deep: true }], nothing: null };
  same(response({ extensions: anyPack(StructSchema, fromJsonStruct(members)) }));
  const unknown = [{ no: 999, wireType: 2, data: new Uint8Array([1, 65]) }] as never;
  same(response({ uuid: 'u', $unknown: unknown } as never));
  // A message in two parts is one.
  const [first, second] = [response({ IP: { source: 'a' } }), response({ IP: { destination: 'b' } })];
  same(Buffer.concat([first, second]));
});

function fromJsonStruct(members: Record<string, unknown>) {
  return fromJson(StructSchema, members as never);
}
