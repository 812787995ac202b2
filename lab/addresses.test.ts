import assert from 'node:assert/strict';
import { BlockList, isIP } from 'node:net';
import { test } from 'node:test';
import {
  hostAddresses,
  hostNumbers,
  httpsUrl,
  kubernetesServiceAddresses,
  loadBalancerBlocks,
  maxNodes,
  nodeHostNumber,
  serviceCidrs,
} from './addresses.ts';
import { splitRest } from './node-commands.ts';
import { alignBlocks } from './output.ts';
import { podBlocks } from './pod-routes.ts';

test('hostAddresses() gives the families of the lab, the primary one first', () => {
  assert.deepEqual(hostAddresses(nodeHostNumber(1), 'dual'), ['10.77.0.11', 'fd77::11']);
  assert.deepEqual(hostAddresses(nodeHostNumber(2), 'v4'), ['10.77.0.12']);
  assert.deepEqual(hostAddresses(nodeHostNumber(2), 'v6'), ['fd77::12']);
});

test('hostAddresses() are all different and valid, up to the last node', () => {
  const all = Array.from({ length: maxNodes }, (_, index) => hostAddresses(nodeHostNumber(index + 1), 'dual')).flat();
  assert.equal(new Set(all).size, all.length);
  assert.ok(all.every((address) => isIP(address) > 0));
});

test('loadBalancerBlocks hold no address of a host', () => {
  const blocks = new BlockList();
  for (const family of ['v4', 'v6'] as const) {
    const [network, prefix] = loadBalancerBlocks[family].split('/');
    blocks.addSubnet(network!, Number(prefix), family === 'v4' ? 'ipv4' : 'ipv6');
  }
  assert.ok(blocks.check('10.77.0.224') && blocks.check('fd77::1:0:1', 'ipv6'));
  const nodes = Array.from({ length: maxNodes }, (_, index) => nodeHostNumber(index + 1));
  for (const host of [hostNumbers.controlPlane, hostNumbers.world, ...nodes])
    for (const address of hostAddresses(host, 'dual'))
      assert.ok(!blocks.check(address, address.includes(':') ? 'ipv6' : 'ipv4'), address);
});

test('serviceCidrs() and kubernetesServiceAddresses() follow the families', () => {
  assert.equal(serviceCidrs('dual'), '10.96.0.0/16,fd00:10:96::/112');
  assert.deepEqual(kubernetesServiceAddresses('v6'), ['fd00:10:96::1']);
});

test('httpsUrl() puts brackets around IPv6', () => {
  assert.equal(httpsUrl('10.77.0.1', 6443), 'https://10.77.0.1:6443');
  assert.equal(httpsUrl('fd77::1', 6443), 'https://[fd77::1]:6443');
});

test('podBlocks() takes what a WeirNode names, and nothing from one without a spec', () => {
  const node = { metadata: { name: 'node1' }, spec: { podCIDRs: ['10.244.0.0/24', 'fd00:10:244::/64'] } };
  assert.deepEqual(podBlocks(node), ['10.244.0.0/24', 'fd00:10:244::/64']);
  assert.deepEqual(podBlocks({ metadata: { name: 'node1' } }), []);
  assert.deepEqual(podBlocks(undefined), []);
});

test('splitRest() takes the lab’s name from behind the action, and keeps the command’s own flags', () => {
  assert.deepEqual(splitRest(['--', 'ls', '-l'], 'lab'), { lab: 'lab', command: ['ls', '-l'] });
  assert.deepEqual(splitRest(['--name', 'two', '--', 'ls', '--name'], 'lab'), {
    lab: 'two',
    command: ['ls', '--name'],
  });
  assert.deepEqual(splitRest(['--name=two'], 'lab'), { lab: 'two', command: [] });
});

test('alignBlocks() aligns each block for itself', () => {
  assert.equal(alignBlocks([['a', 'b'], [], ['long', 'c']]), 'a  b\n\nlong  c\n');
});
