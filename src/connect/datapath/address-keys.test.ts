import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addressBytes, addressText, blockKey, blockText, epochSlot } from './address-keys.ts';

/** bpf/lib/policy.h, epoch_slot(), with the whole numbers of C. */
function slotAsInC(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const word = (i: number) => BigInt(view.getUint32(i * 4, true));
  const u32 = (value: bigint) => value & 0xffff_ffffn;
  const h = word(0) ^ u32(word(1) * 0x85eb_ca6bn) ^ u32(word(2) * 0xc2b2_ae35n) ^ word(3);
  return Number(u32(h * 0x9e37_79b1n) >> 16n);
}

const v4 = fc.ipV4();
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 });

test('addressBytes() maps IPv4 into IPv6 as the datapath does', () => {
  assert.equal(Buffer.from(addressBytes('10.1.2.3')).toString('hex'), '00000000000000000000ffff0a010203');
  assert.equal(Buffer.from(addressBytes('fd00::1')).toString('hex'), 'fd000000000000000000000000000001');
  assert.throws(() => addressBytes('::ffff:10.1.2.3'), TypeError);
});

test('addresses and blocks survive the way to the kernel and back', () => {
  fc.assert(fc.property(v4, (text) => assert.equal(addressText(addressBytes(text)), text)));
  for (const text of ['0.0.0.0/0', '10.0.0.0/8', '10.1.2.3/32', '::/0', 'fd00::/8', 'fd00:1:2:3::/64'])
    assert.equal(blockText(blockKey(text)), text);
  fc.assert(
    fc.property(bytes16, (bytes) => {
      const text = addressText(bytes);
      assert.deepEqual([...addressBytes(text)], [...bytes]);
    }),
  );
});

test('blockKey() counts 96 bits more for IPv4', () => {
  assert.equal(blockKey('10.0.0.0/8').prefixlen, 104);
  assert.equal(blockKey('0.0.0.0/0').prefixlen, 96);
  assert.equal(blockKey('fd00::/8').prefixlen, 8);
});

test('epochSlot() computes what the datapath computes', () => {
  fc.assert(fc.property(bytes16, (bytes) => assert.equal(epochSlot(bytes), slotAsInC(bytes))));
  fc.assert(fc.property(v4, (text) => assert.equal(epochSlot(addressBytes(text)), slotAsInC(addressBytes(text)))));
  // Printed by the function of the header, compiled with a C compiler.
  assert.equal(epochSlot(addressBytes('10.0.0.1')), 64901);
  assert.equal(epochSlot(addressBytes('fd00:10:244::1')), 46893);
});

test('epochSlot() spreads the addresses of a node over slots of their own', () => {
  const slots = new Set(Array.from({ length: 254 }, (_, i) => epochSlot(addressBytes(`10.244.0.${i + 1}`))));
  assert.ok(slots.size > 250, `${slots.size} slots for 254 addresses`);
});
