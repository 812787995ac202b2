import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createFrameReader, frame } from './message-frames.ts';
import { RpcError } from './rpc-status.ts';

test('createFrameReader() gives the messages that were framed, however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 }),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map(frame));
        const reader = createFrameReader(1000);
        const got: number[][] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const next = at + cuts[i % cuts.length]!;
          reader.push(stream.subarray(at, next), (bytes, start, end) => got.push([...bytes.subarray(start, end)]));
          at = next;
        }
        assert.deepEqual(
          got,
          messages.map((each) => [...each]),
        );
        assert.equal(reader.unfinished, false);
      },
    ),
  );
});

test('createFrameReader() refuses what is too long or compressed before it is there', () => {
  const none = () => assert.fail();
  for (const prefix of [
    [0, 0xff, 0xff, 0xff, 0xff],
    [0, 0, 0, 3, 0xe9],
    [1, 0, 0, 0, 1],
    [7, 0, 0, 0, 0],
  ]) {
    assert.throws(() => createFrameReader(1000).push(Buffer.from(prefix), none), RpcError);
    const slow = createFrameReader(1000);
    assert.throws(() => {
      for (const byte of prefix) slow.push(Buffer.from([byte]), none);
    }, RpcError);
  }
});

test('createFrameReader() knows that a stream ended within a message', () => {
  const reader = createFrameReader(1000);
  reader.push(frame(Buffer.from('abc')).subarray(0, 6), () => assert.fail());
  assert.equal(reader.unfinished, true);
});
