import assert from 'node:assert/strict';
import { test } from 'node:test';
import { routesFor } from './derive-routes.ts';

const gateways = { ipv4: '169.254.1.1', ipv6: 'fe80::1' };
const node = (name: string, addresses: string[], podCidrs: string[]) => ({
  name,
  addresses,
  podCidrs,
  clusterPools: [],
});

test('routesFor() leads to each other node’s blocks by its address of the same family', () => {
  const nodes = [
    node('n1', ['10.9.0.1', 'fd09::1'], ['10.244.0.0/24', 'fd00:1::/64']),
    node('n2', ['fd09::2', '10.9.0.2', '10.9.9.2'], ['10.244.1.0/24', 'fd00:2::/64']),
  ];
  assert.deepEqual(routesFor('n1', nodes, gateways), [
    { dst: '10.244.0.0/24', via: '169.254.1.1', local: true, src: '10.9.0.1', node: 'n1' },
    { dst: 'fd00:1::/64', via: 'fe80::1', local: true, src: 'fd09::1', node: 'n1' },
    { dst: '10.244.1.0/24', via: '10.9.0.2', local: false, node: 'n2' },
    { dst: 'fd00:2::/64', via: 'fd09::2', local: false, node: 'n2' },
  ]);
});

test('routesFor() leaves out a block that its node has no address to reach it by', () => {
  assert.deepEqual(routesFor('n1', [node('n2', ['10.9.0.2'], ['fd00:2::/64'])], gateways), []);
  assert.deepEqual(routesFor('n1', [], gateways), []);
});
