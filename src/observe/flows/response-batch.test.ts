import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createResponseBatch } from './response-batch.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

test('createResponseBatch() leaves nothing of a flow that cannot be encoded', () => {
  const { context, record, ring } = createScene();
  record(makeEvent({ from: addresses.far, to: addresses.db }));
  const row = ring.get(0);
  const batch = createResponseBatch(context);
  batch.flow(row);
  const broken = Object.defineProperty({ ...row }, 'source', {
    get() {
      throw new Error('not there');
    },
  });
  assert.throws(() => batch.flow(broken), /not there/);
  batch.flow(row);
  const alone = createResponseBatch(context);
  alone.flow(row);
  const { bytes } = alone.take()!;
  assert.deepEqual(batch.take()!.bytes, Buffer.concat([bytes, bytes]));
});
