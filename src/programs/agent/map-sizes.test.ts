import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mapSizes } from './map-sizes.ts';

const gib = 2 ** 30;

test('mapSizes() follows the memory in powers of two, between bounds', () => {
  assert.deepEqual(mapSizes(24 * gib), {
    policy_peer: 262_144,
    policy_ports: 262_144,
    ipcache: 131_072,
    ipcache_prefix: 131_072,
  });
  assert.equal(mapSizes(31.4 * gib).policy_peer, mapSizes(24 * gib).policy_peer);
  assert.equal(mapSizes(64 * gib).policy_peer, 1_048_576);
  assert.equal(mapSizes(0.5 * gib).policy_peer, 65_536);
  assert.equal(mapSizes(0.5 * gib).ipcache_prefix, 65_536);
  assert.equal(mapSizes(4096 * gib).policy_peer, 2_097_152);
});
