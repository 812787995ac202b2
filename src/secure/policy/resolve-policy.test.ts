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
    addresses: ['10.0.0.9', 'fd00::9'],
  },
];

function resolvedRow(rules: object) {
  const { row } = parsePolicy({
    kind: 'CiliumNetworkPolicy',
    metadata: { namespace: 'shop', name: 'p', uid: 'u', resourceVersion: '1' },
    spec: { endpointSelector: {}, ...rules },
  })!;
  return resolvePolicy(row!, { ...emptyContext, services: () => services })[0]!;
}

test('a service that selects by labels that do not count means its endpoints where it is allowed', () => {
  const to = [{ toServices: [{ k8sService: { serviceName: 'db-0', namespace: 'data' } }] }];
  const { egress, remarks } = resolvedRow({ egress: to });
  assert.deepEqual(egress[0]!.peers, [
    { kind: 'block', cidr: '10.0.0.9/32', except: [], reach: 'any' },
    { kind: 'block', cidr: 'fd00::9/128', except: [], reach: 'any' },
  ]);
  assert.equal(remarks, undefined);
});

test('where it is denied, it means all pods with its other labels, and says so', () => {
  const to = [{ toServices: [{ k8sServiceSelector: { selector: {}, namespace: 'data' } }] }];
  const { egress, remarks } = resolvedRow({ egressDeny: to });
  const [peer] = egress[0]!.peers!;
  assert.deepEqual(Object.keys(peer!.kind === 'endpoints' ? peer!.selector.matchLabels : {}).sort(), [
    'app',
    'io.kubernetes.pod.namespace',
  ]);
  assert.match(
    remarks!.join(),
    /^spec\.egressDeny\[0\]\.toServices denies the service data\/db-0, which selects by statefulset\.kubernetes\.io\/pod-name/,
  );
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
