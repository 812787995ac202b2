import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Flow, FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { GetFlowsResponseSchema } from '../../../proto/gen/observer/observer_pb.js';
import { createFlowEncoder } from './encode-flow.ts';
import { compileFieldMask } from './field-mask.ts';
import { createUuidBytes, flowUuid } from './flow-message.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const { web, db, far } = addresses;

test('an encoder with a mask makes what the mask leaves of a whole flow', () => {
  const scene = createScene();
  scene.record(
    makeEvent({ from: web, to: db, identity: [256, 257], cookie: [0, 7] }),
    makeEvent({ from: far, to: db, identity: [258, 257], type: 3, reason: 1 }),
  );
  const whole = createFlowEncoder(scene.context);
  for (const paths of [
    ['uuid'],
    ['time', 'source.pod_name', 'l4.TCP'],
    ['Summary', 'extensions'],
    ['ingress_allowed_by'],
  ]) {
    const mask = compileFieldMask(FlowSchema, paths);
    assert.ok('masking' in mask);
    const masked = createFlowEncoder(scene.context, mask);
    for (const row of scene.rows()) {
      const { responseTypes, nodeName, time } = fromBinary(GetFlowsResponseSchema, masked.response(row));
      assert.equal(responseTypes.case, 'flow');
      const left: Flow = fromBinary(FlowSchema, mask.masking(whole.flow(row)));
      assert.deepEqual(toBinary(FlowSchema, responseTypes.value as Flow), toBinary(FlowSchema, left));
      assert.deepEqual([nodeName, Number(time?.seconds)], ['node1', row.seconds]);
    }
  }
});

test('a row that is read where it lies says what its copy says', () => {
  const scene = createScene(4);
  for (const reason of [1, 2, 3])
    scene.record(makeEvent({ from: web, to: db, identity: [256, 257], cookie: [0, 7], type: 3, reason, direction: 2 }));
  const encoder = createFlowEncoder(scene.context);
  const cursor = scene.ring.cursor();
  for (let seq = scene.ring.oldest; seq < scene.ring.next; seq++)
    assert.deepEqual(encoder.response(cursor.moveTo(seq)), encoder.response(scene.ring.get(seq)));
});

test('createUuidBytes() writes what flowUuid() says', () => {
  const bytes = createUuidBytes('0123456789abcdef');
  for (const seq of [0, 1, 15, 16, 2 ** 31, 2 ** 32 + 5, 2 ** 48 + 1, Number.MAX_SAFE_INTEGER, 7])
    assert.equal(Buffer.from(bytes(seq)).toString(), flowUuid('0123456789abcdef', seq));
});
