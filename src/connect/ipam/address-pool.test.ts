import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createAddressPool } from './address-pool.ts';

function pool(cidr: string, restMs = 1000) {
  const clock = { ms: 0 };
  return { clock, pool: createAddressPool(cidr, { nowMs: () => clock.ms, restMs }) };
}

test('allocate() hands out every address but the first, the last and the one of the node, then none', () => {
  const { pool: small } = pool('10.0.0.8/29');
  const given = Array.from({ length: 6 }, (_, i) => small.allocate(`pod${i}`));
  assert.deepEqual(given, ['10.0.0.9', '10.0.0.10', '10.0.0.11', '10.0.0.12', '10.0.0.13', undefined]);
  assert.deepEqual(small.usage(), { cidr: '10.0.0.8/29', capacity: 5, used: 5, resting: 0 });
});

test('allocate() answers an owner with the address it has', () => {
  const { pool: block } = pool('fd00:1::/64');
  assert.equal(block.allocate('a'), 'fd00:1::1');
  assert.equal(block.allocate('a'), 'fd00:1::1');
  assert.equal(block.allocate('b'), 'fd00:1::2');
  assert.equal(block.usage().used, 2);
});

test('release() lets an address rest before anybody else gets it', () => {
  const { clock, pool: block } = pool('10.0.0.0/30');
  block.allocate('a');
  block.allocate('b');
  assert.equal(block.release('a'), '10.0.0.1');
  assert.equal(block.release('a'), undefined);
  clock.ms = 999;
  assert.equal(block.allocate('c'), undefined);
  assert.deepEqual(block.usage(), { cidr: '10.0.0.0/30', capacity: 2, used: 1, resting: 1 });
  clock.ms = 1000;
  assert.equal(block.allocate('c'), '10.0.0.1');
});

test('allocate() goes on in turn, so that a freed address is used as late as possible', () => {
  const { clock, pool: block } = pool('10.0.0.0/29', 0);
  for (const owner of ['a', 'b', 'c']) block.allocate(owner);
  block.release('a');
  clock.ms = 1;
  assert.equal(block.allocate('d'), '10.0.0.4');
});

test('reserve() takes what it is told after a restart, and refuses what is not free or not of the block', () => {
  const { pool: block } = pool('10.0.1.0/24');
  assert.equal(block.reserve('10.0.1.7', 'a'), true);
  assert.equal(block.reserve('10.0.1.7', 'a'), true);
  assert.equal(block.reserve('10.0.1.7', 'b'), false);
  for (const wrong of ['10.0.2.7', 'fd00::1', 'rubbish']) assert.equal(block.reserve(wrong, 'c'), false);
  assert.equal(block.allocate('a'), '10.0.1.7');
});

test('rest() keeps an address resting over a restart, unless somebody has it', () => {
  const { clock, pool: block } = pool('10.0.0.0/30');
  block.reserve('10.0.0.1', 'a');
  block.rest({ address: '10.0.0.1', owner: 'x', freedAtMs: 0 });
  block.rest({ address: '10.0.0.2', owner: 'x', freedAtMs: -500 });
  block.rest({ address: '10.9.9.9', owner: 'x', freedAtMs: 0 });
  assert.equal(block.allocate('b'), undefined);
  clock.ms = 500;
  assert.equal(block.allocate('b'), '10.0.0.2');
  assert.equal(block.leases().length, 2);
});

test('an owner that reserves another address does not leave its old one taken for ever', () => {
  const { clock, pool: block } = pool('10.0.0.0/29');
  block.reserve('10.0.0.1', 'a');
  block.reserve('10.0.0.2', 'a');
  block.release('a');
  clock.ms = 1000;
  assert.deepEqual(block.usage(), { cidr: '10.0.0.0/29', capacity: 5, used: 0, resting: 0 });
});

test('whatever happens, no two owners have one address and a resting one is given to nobody', () => {
  const step = fc.record({
    owner: fc.integer({ min: 0, max: 7 }).map(String),
    action: fc.constantFrom('allocate', 'release', 'wait'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { clock, pool: block } = pool('10.0.0.0/29');
      const has = new Map<string, string>();
      const freed = new Map<string, number>();
      for (const { owner, action } of steps) {
        if (action === 'wait') clock.ms += 300;
        else if (action === 'release') {
          const address = block.release(owner);
          assert.equal(address, has.get(owner));
          if (address !== undefined) freed.set(address, clock.ms);
          has.delete(owner);
        } else {
          const address = block.allocate(owner);
          if (address === undefined) continue;
          if (!has.has(owner)) assert.ok(clock.ms - (freed.get(address) ?? -1e9) >= 1000, 'rested');
          has.set(owner, address);
        }
        assert.equal(new Set(has.values()).size, has.size);
        assert.equal(block.usage().used, has.size);
      }
    }),
  );
});
