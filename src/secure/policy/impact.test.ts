import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityLabels, reservedIdentities, reservedIdentityRows } from '../../core/identity.ts';
import type { AddressRow } from '../../core/rows.ts';
import { contextOfNode, type NodePolicyModel, policyImpact, type SeenConnection } from './impact.ts';
import { readPolicies } from './read-policies.ts';

const pod = (address: string, app: string, identity: number, endpointId: number): AddressRow => ({
  address,
  identity,
  kind: 'pod',
  namespace: 'shop',
  pod: app,
  namedPorts: [],
  ifindex: endpointId,
  endpointId,
});
const identity = (id: number, app: string) => ({
  id,
  labels: identityLabels({ namespace: 'shop', serviceAccount: 'default', labels: { app } }),
});

/** web runs on n1, db on n2. */
const nodeOf = (node: 'n1' | 'n2'): NodePolicyModel => ({
  node,
  model: {
    identities: [...reservedIdentityRows(), identity(256, 'web'), identity(257, 'db')],
    namespaces: [{ name: 'shop', labels: {} }],
    addresses: [pod('10.0.1.1', 'web', 256, node === 'n1' ? 1 : 0), pod('10.0.2.1', 'db', 257, node === 'n2' ? 1 : 0)],
    prefixes: [{ cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] }],
    policies: [],
  },
  clusterStaged: false,
  nodes: [],
  cidrGroups: [],
  services: [],
  objects: [],
});
const seen = (node: string, sourcePort: number, port: number, timeMs: number): SeenConnection => ({
  node,
  source: '10.0.1.1',
  sourcePort,
  destination: '10.0.2.1',
  protocol: 6,
  port,
  timeMs,
});
const db = {
  kind: 'NetworkPolicy',
  metadata: { name: 'db', namespace: 'shop' },
  spec: {
    podSelector: { matchLabels: { app: 'db' } },
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 5432 }] }],
  },
};

test('policyImpact() counts each connection once, with its first and last time and the rule', () => {
  const nodes = [nodeOf('n1'), nodeOf('n2')];
  const connections = [
    seen('n1', 1000, 80, 1000),
    seen('n2', 1000, 80, 1001),
    seen('n2', 1001, 80, 5000),
    seen('n2', 1002, 5432, 6000),
    seen('n3', 1003, 80, 7000),
  ];
  const impact = policyImpact(nodes, connections, {
    without: ({ model }) => model.policies,
    withIt: (node) => readPolicies([db], contextOfNode(node)),
  });
  assert.deepEqual(impact, {
    connections: 3,
    changed: 2,
    rows: [
      {
        effect: 'cut off',
        from: 'shop/web',
        to: 'shop/db',
        port: '80/TCP',
        connections: 2,
        first: '1970-01-01T00:00:01.001Z',
        last: '1970-01-01T00:00:05.000Z',
        withIt: 'isolated by NetworkPolicy shop/db',
        withoutIt: 'allowed: nobody isolates either end',
      },
    ],
  });
});

test('policyImpact() says who would be let in', () => {
  const isolating = { ...db, metadata: { name: 'closed', namespace: 'shop' }, spec: { podSelector: {} } };
  const impact = policyImpact([nodeOf('n2')], [seen('n2', 1, 5432, 0)], {
    without: () => readPolicies([isolating]),
    withIt: () => readPolicies([isolating, db]),
  });
  assert.deepEqual(
    impact.rows.map(({ effect, withIt }) => [effect, withIt]),
    [['let in', 'allowed by NetworkPolicy shop/db ingress[0]']],
  );
});
