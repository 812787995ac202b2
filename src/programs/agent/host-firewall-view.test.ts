import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reservedIdentities, reservedIdentityRows } from '../../core/identity.ts';
import type { SocketRow } from '../../kernel/sockets.ts';
import { essentialPolicy } from '../../secure/policy/essential-traffic.ts';
import type { PolicyModel } from '../../secure/policy/evaluate.ts';
import { readPolicies } from '../../secure/policy/read-policies.ts';
import { emptyContext } from '../../secure/policy/resolve-policy.ts';
import { socketDenials } from './host-firewall-view.ts';

const plain = { namedPorts: [], ifindex: 0, endpointId: 0 } as const;
const model: PolicyModel = {
  identities: reservedIdentityRows(),
  namespaces: [],
  addresses: [
    { ...plain, address: '10.9.0.1', identity: reservedIdentities.host, kind: 'host' },
    { ...plain, address: '10.9.0.2', identity: reservedIdentities['remote-node'], kind: 'remote-node' },
  ],
  prefixes: [
    { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
    { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
  ],
  policies: [
    essentialPolicy({ nodeLabels: {}, podCidrs: [] }),
    ...readPolicies(
      [
        {
          apiVersion: 'cilium.io/v2',
          kind: 'CiliumClusterwideNetworkPolicy',
          metadata: { name: 'ssh' },
          spec: {
            nodeSelector: {},
            ingress: [{ fromEntities: ['world'], toPorts: [{ ports: [{ port: '22', protocol: 'TCP' }] }] }],
          },
        },
      ],
      { ...emptyContext, nodeLabels: {} },
    ),
  ],
};
const listens = (port: number, address = '0.0.0.0'): SocketRow => ({
  protocol: 'tcp',
  state: 'listening',
  address,
  port,
  peer: '0.0.0.0',
  peerPort: 0,
});
const connected = (port: number, peer: string, peerPort: number): SocketRow => ({
  ...listens(port, '10.9.0.1'),
  state: 'connected',
  peer,
  peerPort,
});
const found = (...sockets: SocketRow[]) =>
  socketDenials(model, sockets).map(({ what, peer, port, policies }) => [what, peer, port, ...policies].join(' '));

test('socketDenials() names who could no longer reach what listens, and the policy', () => {
  assert.deepEqual(found(listens(22)), ['listening other nodes 22 ssh']);
  assert.deepEqual(found(listens(9100)), ['listening world 9100 ssh', 'listening other nodes 9100 ssh']);
  assert.deepEqual(found(listens(10_250)), ['listening world 10250 ssh'], 'the kubelet is essential for nodes');
  assert.deepEqual(found(listens(9100, '127.0.0.1')), []);
});

test('socketDenials() judges open connections in their direction', () => {
  assert.deepEqual(found(connected(40_000, '203.0.113.7', 443)), [], 'nobody isolates egress');
  assert.deepEqual(found(listens(22), connected(22, '10.9.0.2', 40_000)), [
    'open 10.9.0.2 22 ssh',
    'listening other nodes 22 ssh',
  ]);
});
