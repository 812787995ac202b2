import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readManifests } from '../manifests/read-manifests.ts';
import { parsePolicy } from '../parse-policy.ts';
import { formatPolicies } from './format-policies.ts';

const untidy = `# the shop
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
spec:
  policyTypes: [Egress, Ingress]
  ingress:
    # who asks
    - ports:
        - port: 443
          protocol: TCP # https
        - protocol: TCP
          port: 80
      from:
        - podSelector: {matchLabels: {b: x, a: y}}
  podSelector: {}
metadata:
  namespace: shop
  name: web
---
kind: ConfigMap
apiVersion: v1
`;
const tidy = `# the shop
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    # who asks
    - from:
        - podSelector: {matchLabels: {a: y, b: x}}
      ports:
        - protocol: TCP
          port: 80
        - protocol: TCP # https
          port: 443
---
kind: ConfigMap
apiVersion: v1
`;

test('formatPolicies() orders fields and lists, keeps comments and leaves other objects alone', () => {
  const formatted = formatPolicies(untidy);
  assert.ok(formatted.ok);
  assert.equal(formatted.text, tidy);
  assert.deepEqual(formatPolicies(tidy), formatted);
  assert.equal(formatPolicies('a: [').ok, false);
});

const root = fileURLToPath(new URL('../../../../examples', import.meta.url));
for (const file of globSync('**/*.yaml', { cwd: root })) {
  test(`formatPolicies() changes nothing that ${file} means, and does nothing twice`, () => {
    const text = readFileSync(`${root}/${file}`, 'utf8');
    const once = formatPolicies(text);
    assert.ok(once.ok);
    assert.deepEqual(formatPolicies(once.text), once);
    const [before, after] = [text, once.text].map((each) =>
      readManifests([{ file, text: each }]).manifests.map(({ value }) =>
        JSON.stringify(parsePolicy(value)?.row ?? value)
          .split('')
          .sort()
          .join(''),
      ),
    );
    assert.deepEqual(after, before);
  });
}
