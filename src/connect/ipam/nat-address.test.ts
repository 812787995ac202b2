import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAddressPool } from './address-pool.ts';
import { natAddress } from './nat-address.ts';

test('natAddress() is the last address that a pod could have, in canonical text', () => {
  assert.equal(natAddress('10.244.3.0/24'), '10.244.3.254');
  assert.equal(natAddress('10.244.0.0/20'), '10.244.15.254');
  assert.equal(natAddress('fd00:10:244:2::/64'), 'fd00:10:244:2::fffe');
});

test('natAddress() leaves blocks that are too small to their pods, and refuses what is no block', () => {
  assert.equal(natAddress('10.0.0.0/30'), undefined);
  assert.equal(natAddress('10.0.0.0'), undefined);
});

test('natAddress() is never given to a pod', () => {
  for (const cidr of ['10.0.0.0/29', '10.1.0.0/16', 'fd00::/64', 'fd00::/120']) {
    const pool = createAddressPool(cidr, { nowMs: () => 0 });
    const address = natAddress(cidr);
    for (let i = 0; ; i++) {
      const given = pool.allocate(String(i));
      if (given === undefined) break;
      assert.notEqual(given, address);
    }
  }
});
