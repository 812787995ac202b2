import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatLabel, labelKeyProblem, parseLabel, parseSelector, selectorKey, selectorMatches } from './labels.ts';

test('parseLabel() reads what formatLabel() wrote', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('k8s', 'any', 'reserved'),
      fc.stringMatching(/^[a-z./]+$/),
      fc.string(),
      (source, key, value) => {
        assert.deepEqual(parseLabel(formatLabel({ source, key, value })), { source, key, value });
      },
    ),
  );
  assert.deepEqual(parseLabel('app=web'), { source: 'any', key: 'app', value: 'web' });
  assert.deepEqual(parseLabel('k8s:image=a:b=c'), { source: 'k8s', key: 'image', value: 'a:b=c' });
});

const operators: [
  operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist',
  values: string[],
  web: boolean,
  db: boolean,
  none: boolean,
][] = [
  ['In', ['web', 'x'], true, false, false],
  ['NotIn', ['web', 'x'], false, true, true],
  ['Exists', [], true, true, false],
  ['DoesNotExist', [], false, false, true],
];
for (const [operator, values, ...wanted] of operators) {
  test(`selectorMatches() ${operator}`, () => {
    const selector = { matchLabels: {}, matchExpressions: [{ key: 'app', operator, values }] };
    const found = [{ app: 'web' }, { app: 'db' }, {}].map((labels) =>
      selectorMatches(selector, labels as Record<string, string>),
    );
    assert.deepEqual(found, wanted);
  });
}

test('selectorMatches() needs every label and every expression', () => {
  const problems: string[] = [];
  const selector = parseSelector(
    { matchLabels: { a: '1', b: '2' }, matchExpressions: [{ key: 'c', operator: 'Exists' }] },
    's',
    problems,
  );
  assert.deepEqual(problems, []);
  assert.ok(selectorMatches(selector, { a: '1', b: '2', c: '' }));
  assert.ok(!selectorMatches(selector, { a: '1', b: '2' }));
  assert.ok(!selectorMatches(selector, { a: '1', c: '3' }));
});

test('selectorKey() is equal for selectors that differ in order only', () => {
  const requirement = (values: string[]) => ({ key: 'k', operator: 'In' as const, values });
  const a = selectorKey({ matchLabels: { a: '1', b: '2' }, matchExpressions: [requirement(['x', 'y'])] });
  const b = selectorKey({ matchLabels: { b: '2', a: '1' }, matchExpressions: [requirement(['y', 'x'])] });
  assert.equal(a, b);
  assert.notEqual(a, selectorKey({ matchLabels: { a: '1' }, matchExpressions: [] }));
});

test('labelKeyProblem() follows the syntax of Kubernetes', () => {
  for (const key of ['a', 'app.kubernetes.io/name', 'A_b-c.9', `${'p'.repeat(253)}/a`])
    assert.equal(labelKeyProblem(key), undefined, key);
  for (const key of ['', '/', 'a/', '-a', 'a-', 'a b', 'A.io/x/y', 'UPPER/a', 'a'.repeat(64), `${'p'.repeat(254)}/a`]) {
    assert.notEqual(labelKeyProblem(key), undefined, key);
  }
});

test('selectorMatches() does not take what every object has for a label', () => {
  const exists = {
    matchLabels: {},
    matchExpressions: [{ key: 'constructor', operator: 'Exists' as const, values: [] }],
  };
  assert.ok(!selectorMatches(exists, {}));
  assert.ok(selectorMatches(exists, { constructor: 'x' } as unknown as Record<string, string>));
});
