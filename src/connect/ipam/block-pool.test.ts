import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cidrContains, parseCidr } from '../../core/ip.ts';
import { blockCount, blockName, nextBlock, poolProblem } from './block-pool.ts';

const v4 = { cidr: '10.244.0.0/22', blockBits: 24 };
const v6 = { cidr: 'fd00:10:244::/48', blockBits: 64 };
const cidr = (text: string) => {
  const parsed = parseCidr(text);
  assert.ok(parsed.ok);
  return parsed.value;
};

test('nextBlock() hands out blocks in order until none is left', () => {
  const used = new Set<string>();
  for (let block = nextBlock(v4, used); block !== undefined; block = nextBlock(v4, used)) used.add(block);
  assert.deepEqual([...used], ['10.244.0.0/24', '10.244.1.0/24', '10.244.2.0/24', '10.244.3.0/24']);
  assert.equal(blockCount(v4), 4);
});

test('nextBlock() takes a gap, and knows both families', () => {
  assert.equal(nextBlock(v4, new Set(['10.244.0.0/24', '10.244.2.0/24'])), '10.244.1.0/24');
  assert.equal(nextBlock(v6, new Set(['fd00:10:244::/64'])), 'fd00:10:244:1::/64');
});

test('nextBlock() never overlaps blocks of another size from before a setting changed', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ bits: fc.integer({ min: 22, max: 28 }), third: fc.integer({ min: 0, max: 3 }) })),
      (old) => {
        const used = new Set(old.map(({ bits, third }) => `10.244.${bits < 24 ? 0 : third}.0/${bits}`));
        const block = nextBlock(v4, used);
        if (block === undefined) return;
        for (const other of used) {
          assert.ok(!cidrContains(cidr(other), cidr(block)), `${block} in ${other}`);
          assert.ok(!cidrContains(cidr(block), cidr(other)), `${other} in ${block}`);
        }
      },
    ),
  );
});

test('poolProblem() says what is wrong with a pool', () => {
  assert.equal(poolProblem(v4), undefined);
  assert.equal(poolProblem(v6), undefined);
  assert.match(poolProblem({ cidr: '10.244.0.0', blockBits: 24 })!, /prefix length/);
  assert.match(poolProblem({ cidr: '10.244.0.0/24', blockBits: 16 })!, /do not fit/);
  assert.match(poolProblem({ cidr: '10.244.0.0/24', blockBits: 31 })!, /do not fit/);
  assert.match(poolProblem({ cidr: 'fd00::/16', blockBits: 64 })!, /16 million/);
});

test('blockName() is one name per block, fit for an object of the API', () => {
  assert.equal(blockName('10.244.3.0/24'), 'v4-10-244-3-0-24');
  assert.equal(blockName('fd00:10:244:3::/64'), blockName('fd00:0010:244:3:0::/64'));
  assert.notEqual(blockName('10.244.3.0/24'), blockName('10.244.3.0/25'));
  assert.match(blockName('fd00:10:244:3::/64'), /^[a-z0-9]([-a-z0-9]*[a-z0-9])$/);
});
