import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import fc from 'fast-check';
import { createWireWriter } from './wire-writer.ts';

/** Any code points but halves of pairs. fast-check's own unit for it makes a map of all of them first, for seconds. */
const anyText = fc.string({
  unit: fc
    .oneof(fc.integer({ min: 0, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff }))
    .map(String.fromCodePoint),
  maxLength: 300,
});
const fieldNumber = fc.constantFrom(1, 15, 16, 2047, 2048, 21_001, 150_000);

test('numbers and texts are what the library writes', () => {
  const writer = createWireWriter();
  fc.assert(
    fc.property(fieldNumber, fc.maxSafeNat(), anyText, (field, number, text) => {
      writer.uint(field, number);
      writer.text(field, text);
      writer.double(field, number / 3);
      const library = new BinaryWriter();
      if (number > 0) library.tag(field, WireType.Varint).uint64(BigInt(number));
      if (text !== '') library.tag(field, WireType.LengthDelimited).string(text);
      library.tag(field, WireType.Bit64).double(number / 3);
      assert.deepEqual([...writer.take()], [...library.finish()]);
    }),
  );
});

test('messages in messages have their length, however long they are', () => {
  const writer = createWireWriter();
  for (const length of [0, 1, 127, 128, 16_383, 16_384, 300_000]) {
    const outer = writer.open(3);
    const inner = writer.open(2000);
    writer.text(1, 'x'.repeat(length));
    writer.close(inner);
    writer.uint(4, length);
    writer.close(outer);
    const reader = new BinaryReader(writer.take());
    assert.deepEqual(reader.tag(), [3, WireType.LengthDelimited]);
    const message = new BinaryReader(reader.bytes());
    assert.equal(reader.pos, reader.len);
    assert.deepEqual(message.tag(), [2000, WireType.LengthDelimited]);
    const text = new BinaryReader(message.bytes());
    if (length > 0) {
      text.tag();
      assert.equal(text.string().length, length);
      assert.deepEqual(message.tag(), [4, WireType.Varint]);
      assert.equal(message.uint32(), length);
    }
    assert.equal(message.pos, message.len);
  }
});

test('messages of any length begin where they were opened, whatever length was expected', () => {
  const writer = createWireWriter();
  fc.assert(
    fc.property(fieldNumber, fc.integer({ min: 0, max: 20_000 }), fc.boolean(), (field, length, long) => {
      const bytes = new Uint8Array(length).fill(7);
      const mark = writer.open(field, long);
      writer.raw(bytes);
      writer.close(mark);
      const library = new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(bytes);
      assert.deepEqual(writer.take(), Buffer.from(library.finish()));
    }),
  );
});

test('a frame has its length before it, and what is taken from a place on was never there', () => {
  const writer = createWireWriter();
  const first = writer.openFrame();
  writer.uint(1, 5);
  writer.closeFrame(first);
  const start = writer.length;
  writer.text(2, 'gone');
  assert.deepEqual([...writer.takeFrom(start)], [18, 4, ...Buffer.from('gone')]);
  const second = writer.openFrame();
  writer.closeFrame(second);
  assert.deepEqual([...writer.take()], [0, 0, 0, 0, 2, 8, 5, 0, 0, 0, 0, 0]);
  assert.equal(writer.length, 0);
});
