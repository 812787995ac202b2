import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  identityKey,
  identityLabels,
  ignoredLabelKeys,
  labelCounts,
  podOfIdentity,
  reservedIdentities,
  reservedName,
} from './identity.ts';

const pod = { namespace: 'shop', serviceAccount: 'default', labels: { app: 'web', 'pod-template-hash': 'abc' } };

test('identityLabels() leaves out what changes per pod or rollout and adds namespace, account and cluster', () => {
  assert.deepEqual(identityLabels(pod), [
    'k8s:app=web',
    'k8s:io.cilium.k8s.policy.cluster=default',
    'k8s:io.cilium.k8s.policy.serviceaccount=default',
    'k8s:io.kubernetes.pod.namespace=shop',
  ]);
});

test('identityLabels() does not let a pod claim another namespace or account by a label', () => {
  const labels = { 'io.kubernetes.pod.namespace': 'kube-system', 'io.cilium.k8s.policy.serviceaccount': 'admin' };
  assert.equal(podOfIdentity(identityLabels({ ...pod, labels }))?.namespace, 'shop');
  assert.ok(
    !identityLabels({ ...pod, labels })
      .join()
      .includes('admin'),
  );
});

test('labelCounts() takes a trailing slash as all keys of a prefix', () => {
  assert.equal(labelCounts('topology.kubernetes.io/zone'), false);
  assert.equal(labelCounts('app'), true);
  assert.equal(labelCounts('app', ['app']), false);
});

test('identityKey() does not depend on order or repetition', () => {
  fc.assert(
    fc.property(fc.array(fc.string(), { minLength: 1 }), (labels) => {
      assert.equal(identityKey(labels), identityKey([...labels].reverse().concat(labels)));
    }),
  );
});

test('podOfIdentity() gives the labels that selectors may ask for; reserved identities are no pods', () => {
  assert.deepEqual(podOfIdentity(identityLabels(pod)), {
    namespace: 'shop',
    labels: {
      app: 'web',
      'io.cilium.k8s.policy.cluster': 'default',
      'io.cilium.k8s.policy.serviceaccount': 'default',
      'io.kubernetes.pod.namespace': 'shop',
    },
  });
  assert.equal(podOfIdentity(['reserved:host']), undefined);
});

test('reserved identities have the numbers of the ecosystem', () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(reservedName), [
    'host',
    'world',
    'unmanaged',
    'health',
    'init',
    'remote-node',
    'kube-apiserver',
    'ingress',
    'world-ipv4',
    'world-ipv6',
  ]);
  assert.equal(reservedName(256), undefined);
  assert.equal(reservedIdentities['remote-node'], 6);
});

test('docs/policy.md lists the labels that do not count', () => {
  const docs = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8');
  for (const key of ignoredLabelKeys) assert.ok(docs.includes(`\`${key}\``), `docs/policy.md: add ${key}`);
});
