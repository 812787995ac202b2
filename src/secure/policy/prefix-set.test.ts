import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Cidr, cidrContains, formatCidr, parseAddress, parseCidr } from '../../core/ip.ts';
import { createPrefixSet } from './prefix-set.ts';

const cidr = fc
  .tuple(fc.constantFrom('10.0.0.1', '10.0.7.9', '10.1.0.0', 'fd00::1', 'fd00:1::'), fc.nat(128))
  .map(([text, bits]): Cidr => {
    const parsed = parseCidr(`${text}/${text.includes(':') ? bits : bits % 33}`);
    if (!parsed.ok) throw new Error(parsed.reason);
    return parsed.value;
  });

test('containing() finds what a search through all blocks finds, shortest first', () => {
  fc.assert(
    fc.property(
      fc.array(cidr),
      fc.array(cidr),
      fc.oneof(cidr, fc.constantFrom('10.0.7.9', 'fd00::1')),
      (added, removed, given) => {
        const set = createPrefixSet();
        const counts = new Map<string, { block: Cidr; count: number }>();
        for (const block of added) {
          const known = counts.get(formatCidr(block)) ?? { block, count: 0 };
          assert.equal(set.add(block), known.count++ === 0);
          counts.set(formatCidr(block), known);
        }
        for (const block of removed) {
          const known = counts.get(formatCidr(block));
          assert.equal(set.remove(block), known?.count === 1);
          if (known && --known.count === 0) counts.delete(formatCidr(block));
        }
        const inner = typeof given === 'string' ? parsedAddress(given) : given;
        const wanted = [...counts.values()].filter(({ block }) => cidrContains(block, inner));
        wanted.sort((a, b) => a.block.prefixBits - b.block.prefixBits);
        assert.deepEqual(
          set.containing(inner),
          wanted.map(({ block }) => formatCidr(block)),
        );
        assert.equal(set.size, counts.size);
      },
    ),
  );
});

function parsedAddress(text: string) {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.value;
}
