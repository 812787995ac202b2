import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FrontendRow } from '../../core/rows.ts';
import { claimsOf, isAnnounced, rankOf } from './claims.ts';

const frontend = (address: string, more: Partial<FrontendRow> = {}): FrontendRow => ({
  key: `outside ${address}:80/TCP`,
  address,
  port: 80,
  protocol: 'TCP',
  scope: 'outside',
  kind: 'LoadBalancer',
  service: 'shop/web',
  portName: '',
  algorithm: 'maglev',
  affinitySeconds: 0,
  onlyLocal: false,
  directReturn: false,
  backends: [],
  ...more,
});
const links = [
  { ifindex: 2, cidr: '10.0.0.0/24' },
  { ifindex: 3, cidr: '10.1.0.0/24' },
  { ifindex: 2, cidr: 'fd00::/64' },
];
const pod = { address: '10.244.0.9', port: 80, role: { state: 'serving', where: 'pod', weight: 1 } } as const;

test('isAnnounced() takes external addresses only when told to', () => {
  assert.equal(isAnnounced(frontend('10.0.0.200'), false), true);
  assert.equal(isAnnounced(frontend('10.0.0.200', { kind: 'ExternalIP' }), false), false);
  assert.equal(isAnnounced(frontend('10.0.0.200', { kind: 'ExternalIP' }), true), true);
  assert.equal(isAnnounced(frontend('10.0.0.1', { kind: 'NodePort' }), true), false);
  assert.equal(isAnnounced(frontend('10.0.0.201', { scope: 'inside' }), true), false);
});

describe('claimsOf()', () => {
  test('takes addresses on the devices whose subnet has them', () => {
    const rows = [frontend('10.0.0.200'), frontend('10.1.0.200'), frontend('fd00::200'), frontend('203.0.113.5')];
    assert.deepEqual(
      claimsOf(rows, links).map((claim) => [claim.address, claim.devices]),
      [
        ['10.0.0.200', [2]],
        ['10.1.0.200', [3]],
        ['fd00::200', [2]],
      ],
    );
  });

  test('with the traffic policy Local, yields where only pods that end serve and other nodes have ready ones', () => {
    const local = { onlyLocal: true, backends: [pod] };
    const yields = (...rows: FrontendRow[]) => claimsOf(rows, links).map((claim) => claim.yields);
    assert.deepEqual(yields(frontend('10.0.0.200', local)), [false]);
    assert.deepEqual(yields(frontend('10.0.0.200', { ...local, handsOver: true })), [true]);
    assert.deepEqual(
      yields(
        frontend('10.0.0.200', { ...local, handsOver: true }),
        frontend('10.0.0.200', { ...local, service: 'shop/other' }),
      ),
      [false],
      'another service of the address has its pod here',
    );
    assert.deepEqual(yields(frontend('10.0.0.200', { handsOver: true }), frontend('10.0.0.200')), [false]);
  });

  test('with the traffic policy Local, stands only where a pod serves, each address for itself', () => {
    const local = { onlyLocal: true };
    const claims = claimsOf(
      [
        frontend('10.0.0.200', { ...local, backends: [pod] }),
        frontend('10.0.0.201', local),
        frontend('fd00::', { ...local, backends: [pod] }),
      ],
      links,
    );
    assert.deepEqual(
      claims.map((claim) => claim.lease),
      ['local-10.0.0.200', 'local-fd00--0'],
    );
  });

  test('a thousand addresses of one subnet need a few leases only, named as Kubernetes allows', () => {
    const rows = Array.from({ length: 1000 }, (_, i) => frontend(`fd00::${(i + 16).toString(16)}`));
    const names = new Set(claimsOf(rows, links).map((claim) => claim.lease));
    assert.equal(names.size, 16);
    for (const name of names) assert.match(name, /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);
  });

  test('services that share an address are one claim', () => {
    const [claim, ...more] = claimsOf([frontend('10.0.0.9'), frontend('10.0.0.9', { service: 'shop/api' })], links);
    assert.deepEqual([claim!.services, more.length], [['shop/api', 'shop/web'], 0]);
  });
});

test('rankOf() gives each node of a lease a place of its own, and leases to all nodes alike', () => {
  const nodes = ['a', 'b', 'c'];
  const first = new Map(nodes.map((node) => [node, 0]));
  for (let i = 0; i < 300; i++) {
    const ranks = nodes.map((node) => rankOf(`any-10.0.0.0-24-${i}`, node, nodes));
    assert.deepEqual([...ranks].sort(), [0, 1, 2]);
    const winner = nodes[ranks.indexOf(0)]!;
    first.set(winner, first.get(winner)! + 1);
  }
  for (const [node, count] of first) assert.ok(count > 60, `${node}: ${count}`);
});
