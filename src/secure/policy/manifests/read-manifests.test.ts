import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pathSteps } from './json-path.ts';
import { readManifests } from './read-manifests.ts';

test('pathSteps() reads fields, places in lists and quoted keys, and stops at what follows', () => {
  assert.deepEqual(pathSteps('spec.ingress[0].ports[1].port must be a number'), [
    'spec',
    'ingress',
    0,
    'ports',
    1,
    'port',
  ]);
  assert.deepEqual(pathSteps('spec.podSelector.matchLabels["app.kubernetes.io/name"] is'), [
    'spec',
    'podSelector',
    'matchLabels',
    'app.kubernetes.io/name',
  ]);
});

const text = `# a comment
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  podSelector: {}
  ingress:
    - ports:
        - port: 80
        - port: "90x"
          endPort: 3
---
apiVersion: v1
kind: List
items:
  - kind: Pod
    metadata:
      name: web
      labels: {app: web}
`;

test('readManifests() points at fields of every document, and at the deepest part of a path that is not there', () => {
  const { manifests, unread } = readManifests([{ file: 'a.yaml', text }]);
  assert.deepEqual(unread, []);
  const [policy, pod] = manifests;
  assert.deepEqual([policy!.name, policy!.namespace, policy!.kind], ['a', 'shop', 'NetworkPolicy']);
  assert.deepEqual(policy!.place('spec.ingress[0].ports[1].port is'), { line: 9, column: 11 });
  assert.deepEqual(policy!.place('spec.ingress[0].ports[1].protocol'), { line: 9, column: 11 });
  assert.deepEqual(policy!.place('metadata.name'), { line: 3, column: 12 });
  assert.deepEqual(policy!.place('nothing'), { line: 2, column: 1 });
  assert.deepEqual([pod!.kind, pod!.name], ['Pod', 'web']);
  assert.deepEqual(pod!.place('metadata.labels["app"]'), { line: 18, column: 16 });
});

test('readManifests() tells what is no YAML with its place, and reads the other documents', () => {
  const { manifests, unread } = readManifests([
    { file: 'b.yaml', text: 'kind: Pod\n---\na: [1\n---\n{"kind": "Pod"}\n' },
  ]);
  assert.equal(manifests.length, 2);
  assert.deepEqual(
    unread.map(({ file, line }) => [file, line]),
    [['b.yaml', 4]],
  );
});

test('readManifests() survives what would grow without end', () => {
  const bomb = [
    'a: &a [x, x]',
    ...'bcdefghijk'.split('').map((c, i) => `${c}: &${c} [${`*${'abcdefghijk'[i]}, `.repeat(9)}]`),
  ];
  assert.equal(readManifests([{ file: 'c.yaml', text: bomb.join('\n') }]).unread.length, 1);
  assert.equal(readManifests([{ file: 'd.yaml', text: '['.repeat(100_000) }]).unread.length > 0, true);
});
