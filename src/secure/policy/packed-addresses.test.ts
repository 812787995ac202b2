import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Cidr, cidrContains, formatAddress, formatCidr, type IpAddress, maskAddress } from '../../core/ip.ts';
import { createPackedAddresses } from './packed-addresses.ts';

/** Few bits, so that one often lies in the other. */
const someByte = fc.constantFrom(0, 1, 0x80, 0xff);
const anyAddress = fc
  .oneof(fc.array(someByte, { minLength: 4, maxLength: 4 }), fc.array(someByte, { minLength: 16, maxLength: 16 }))
  .map((bytes): IpAddress => ({ family: bytes.length === 4 ? 4 : 6, bytes: Uint8Array.from(bytes) }));
const anyBlock = fc
  .tuple(anyAddress, fc.nat({ max: 128 }))
  .map(([address, bits]) => maskAddress(address, Math.min(bits, address.bytes.length * 8)));
const textOf = (address: IpAddress | Cidr) => ('prefixBits' in address ? formatCidr(address) : formatAddress(address));

test('what is packed comes out as it was, and inside() finds what the block contains', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ address: fc.oneof(anyAddress, anyBlock), remove: fc.boolean() }), { maxLength: 200 }),
      anyBlock,
      (steps, block) => {
        const packed = createPackedAddresses();
        const model = new Map<string, IpAddress | Cidr>();
        for (const { address, remove } of steps) {
          const text = textOf(address);
          if (remove) {
            packed.remove(text);
            model.delete(text);
          } else if (!model.has(text)) {
            packed.add(text, address);
            model.set(text, address);
          }
        }
        const slots = new Map(packed.entries());
        assert.deepEqual([...slots.keys()].sort(), [...model.keys()].sort());
        assert.equal(new Set(slots.values()).size, slots.size);
        for (const [text, slot] of slots) {
          assert.equal(packed.slotOf(text), slot);
          assert.deepEqual(packed.address(slot), model.get(text));
          assert.equal(packed.isBlock(slot), 'prefixBits' in model.get(text)!);
        }
        assert.deepEqual(
          [...packed.inside(block)].sort(),
          [...model].flatMap(([text, address]) => (cidrContains(block, address) ? text : [])).sort(),
        );
      },
    ),
  );
});
