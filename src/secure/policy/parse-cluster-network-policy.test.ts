import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseClusterNetworkPolicy } from './parse-cluster-network-policy.ts';

const networks = (...list: string[]) => [{ networks: list }];
const policy = (spec: object) => ({
  kind: 'ClusterNetworkPolicy',
  metadata: { name: 'p' },
  spec: { tier: 'Admin', priority: 3, subject: { namespaces: {} }, ...spec },
});
const good = { action: 'Deny', to: networks('10.0.0.0/8') };
const bad = { action: 'Deny', to: networks('10.0.0.0') };

test('parseClusterNetworkPolicy(): one that cannot be read denies everybody in its tier where it may have denied any', () => {
  const deny = (list: string, index = 0) => ({ index, list, action: 'deny' });
  // Rules for ingress cannot name nodes.
  const spared = { ...deny('ingress'), sparesOwnNode: 'always' };
  const accept = { action: 'Accept', to: networks('10.0.0.0') };
  const cases: [string, object, [tier: string, priority: number], object[], object[]][] = [
    ['a rule beside it', { egress: [good, bad] }, ['admin', 3], [], [deny('egress')]],
    ['tier Baseline', { tier: 'Baseline', egress: [bad] }, ['baseline', 3], [], [deny('egress')]],
    ['no tier', { tier: 'x', egress: [good] }, ['normal', 3], [], [deny('egress')]],
    ['no priority', { priority: -1, egress: [good] }, ['admin', 0], [], [deny('egress')]],
    ['no action', { ingress: [{ from: [{ namespaces: {} }] }] }, ['admin', 3], [spared], []],
    ['no list', { ingress: {} }, ['admin', 3], [spared], []],
    ['a field that is none', { egres: [good] }, ['admin', 3], [spared], [deny('egress')]],
    ['no denial', { egress: [accept] }, ['admin', 3], [], []],
  ];
  for (const [what, spec, order, ingress, egress] of cases) {
    const { row } = parseClusterNetworkPolicy(policy(spec));
    assert.notEqual(row!.error, undefined, what);
    const [closed] = row!.specs;
    assert.deepEqual([closed!.tier, closed!.priority], order, what);
    assert.deepEqual(closed!.isolates, { ingress: true, egress: true }, what);
    assert.deepEqual([closed!.ingress, closed!.egress], [ingress, egress], what);
  }
});

test('parseClusterNetworkPolicy(): a Deny with names of domains keeps its other peers, and the names are named', () => {
  const domains = { domainNames: ['example.com'] };
  const of = (action: string, to: object[]) => {
    const { row, problems } = parseClusterNetworkPolicy(policy({ egress: [{ action, to }] }));
    assert.deepEqual(problems, []);
    assert.equal(row!.unenforced.length, 1);
    return row!.specs[0]!.egress.map((rule) => rule.peers);
  };
  const block = { kind: 'block', cidr: '10.0.0.0/8', except: [], reach: 'any' };
  assert.deepEqual(of('Deny', [...good.to, domains]), [[block]]);
  assert.deepEqual(of('Deny', [domains]), []);
  assert.deepEqual(of('Accept', [...good.to, domains]), [], 'what it is read for allows nothing');
});
