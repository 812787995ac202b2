import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeRow, RemoteEndpointRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { admitRemote } from './admit-remote.ts';

const node = (name: string, ...podCidrs: string[]): NodeRow => ({ name, addresses: [], podCidrs, clusterPools: [] });
const row = (node: string, id: number, ipv4?: string, ipv6?: string): RemoteEndpointRow => ({
  key: `${node}/${id}`,
  node,
  id,
  namespace: 'shop',
  pod: `pod${id}`,
  ipv4,
  ipv6,
  identity: 300,
  namedPorts: [],
});

function setUp() {
  const nodes = createTable<NodeRow>({ name: 'nodes', key: (each) => each.name });
  const to = createTable<RemoteEndpointRow>({ name: 'remote', key: (each) => each.key });
  const admission = admitRemote(nodes, to);
  const keys = () => [...to.rows()].map((each) => each.key).sort();
  return { nodes, to, admission, keys, refused: () => [...admission.refused.keys()].sort() };
}

test('a row counts only with addresses of the blocks of its own node', () => {
  const { nodes, admission, keys, refused } = setUp();
  nodes.upsert([node('a', '10.0.1.0/24', 'fd00:1::/64'), node('b', '10.0.2.0/24')]);
  admission.upsert([
    row('a', 1, '10.0.1.9', 'fd00:1::9'),
    row('a', 2, '10.0.2.9'),
    row('a', 3, '10.0.1.9', 'fd00:2::9'),
    row('b', 1, '192.0.2.1'),
    row('nobody', 1, '10.0.1.9'),
  ]);
  assert.deepEqual(keys(), ['a/1']);
  assert.deepEqual(refused(), ['a/2', 'a/3', 'b/1', 'nobody/1']);
});

test('a row that comes before its node waits, and goes again when the node loses the block', () => {
  const { nodes, admission, keys, refused } = setUp();
  admission.replaceAll([row('a', 1, '10.0.1.9')]);
  assert.deepEqual([keys(), refused()], [[], ['a/1']]);
  nodes.upsert(node('a', '10.0.1.0/24'));
  assert.deepEqual([keys(), refused()], [['a/1'], []]);
  nodes.upsert(node('a', '10.0.7.0/24'));
  assert.deepEqual([keys(), refused()], [[], ['a/1']]);
  nodes.upsert(node('a', '10.0.1.0/24'));
  nodes.delete('a');
  assert.deepEqual([keys(), refused()], [[], ['a/1']]);
});

test('a row that becomes strange is taken out, and one that goes is forgotten', () => {
  const { nodes, admission, keys, refused } = setUp();
  nodes.upsert(node('a', '10.0.1.0/24'));
  admission.upsert([row('a', 1, '10.0.1.9')]);
  admission.upsert([row('a', 1, '10.0.9.9')]);
  assert.deepEqual([keys(), refused()], [[], ['a/1']]);
  admission.delete('a/1');
  assert.deepEqual(refused(), []);
});
