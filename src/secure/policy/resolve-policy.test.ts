import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePolicy } from './parse-policy.ts';
import { emptyContext, resolvePolicy } from './resolve-policy.ts';

const services = [
  {
    key: 'data/db-0',
    namespace: 'data',
    name: 'db-0',
    labels: {},
    selector: { app: 'db', 'statefulset.kubernetes.io/pod-name': 'db-0' },
    addresses: [],
  },
];

function keysAskedFor(rules: object): string[] {
  const { row } = parsePolicy({
    kind: 'CiliumNetworkPolicy',
    metadata: { namespace: 'shop', name: 'p', uid: 'u', resourceVersion: '1' },
    spec: { endpointSelector: {}, ...rules },
  })!;
  const [resolved] = resolvePolicy(row!, { ...emptyContext, services: () => services });
  const peer = resolved!.egress[0]!.peers![0]!;
  assert.equal(peer.kind, 'endpoints');
  return Object.keys(peer.kind === 'endpoints' ? peer.selector.matchLabels : {}).sort();
}

test('a service that selects by labels that do not count means nobody where it is allowed, and all of them where it is denied', () => {
  const to = [{ toServices: [{ k8sService: { serviceName: 'db-0', namespace: 'data' } }] }];
  assert.ok(keysAskedFor({ egress: to }).includes('statefulset.kubernetes.io/pod-name'));
  assert.deepEqual(keysAskedFor({ egressDeny: to }), ['app', 'io.kubernetes.pod.namespace']);
});

test('what a policy refers to is filled in only until the policy is over its limit', () => {
  const node = { labels: {}, addresses: ['10.0.0.1', '10.0.0.2'] };
  let asked = 0;
  const nodes = function* () {
    asked++;
    for (let i = 0; i < 5_000; i++) yield node;
  };
  const { row } = parsePolicy({
    kind: 'CiliumNetworkPolicy',
    metadata: { namespace: 'shop', name: 'p', uid: 'u', resourceVersion: '1' },
    spec: { endpointSelector: {}, ingress: [{ fromNodes: Array.from({ length: 900 }, () => ({})) }] },
  })!;
  assert.equal(row!.error, undefined);
  const [resolved] = resolvePolicy(row!, { ...emptyContext, nodes });
  assert.match(resolved!.error ?? '', /blocks; 5000 are allowed/);
  assert.ok(asked < 10, `${asked} of 900 references were filled in`);
});

test('a group with a block that cannot be read closes who denies it, and nobody who allows it', () => {
  const group = {
    name: 'feed',
    labels: {},
    cidrs: ['192.0.2.0/24'],
    problems: ['spec.externalCIDRs[1] is not a block: x'],
  };
  const resolved = (rules: object) => {
    const { row } = parsePolicy({
      kind: 'CiliumNetworkPolicy',
      metadata: { namespace: 'shop', name: 'p', uid: 'u', resourceVersion: '1' },
      spec: { endpointSelector: {}, ...rules },
    })!;
    return resolvePolicy(row!, { ...emptyContext, cidrGroups: () => [group] })[0]!;
  };
  const set = [{ cidrGroupRef: 'feed' }];
  assert.equal(resolved({ egress: [{ toCIDRSet: set }] }).error, undefined);
  const { error, egress } = resolved({ egressDeny: [{ toCIDRSet: set }] });
  assert.match(error ?? '', /denies the CiliumCIDRGroup feed, whose spec\.externalCIDRs\[1\] is not a block/);
  assert.deepEqual([egress[0]!.action, egress[0]!.peers], ['deny', undefined]);
});
