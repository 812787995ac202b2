import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantsOf, parseFlowAccess } from './flow-access.ts';
import { addGrants, rightsKey } from './rights.ts';

const object = (spec: object, name = 'some') => ({ metadata: { name }, spec });

test('addGrants() needs a grant for flows, and what one grant leaves out another shows', () => {
  assert.equal(addGrants([]), undefined);
  assert.equal(addGrants([{ verbs: ['processes'], redactions: [] }]), undefined);
  const strict = { verbs: ['flows'], redactions: ['labels', 'dns', 'arguments'] } as const;
  assert.deepEqual(addGrants([strict]), { processes: false, redactions: new Set(['arguments', 'labels', 'dns']) });
  const other = { verbs: ['flows', 'processes'], redactions: ['labels', 'arguments'] } as const;
  assert.deepEqual(addGrants([strict, other]), { processes: true, redactions: new Set(['arguments', 'labels']) });
  // A role for processes shows their arguments, and no more of the flows.
  assert.deepEqual(addGrants([strict, { verbs: ['processes'], redactions: [] }]), {
    processes: true,
    redactions: new Set(['labels', 'dns']),
  });
});

test('parseFlowAccess() takes nothing that it does not understand', () => {
  const good = { subjects: [{ kind: 'User', name: 'ann' }], verbs: ['flows'] };
  assert.ok('row' in parseFlowAccess(object(good)));
  for (const bad of [
    {},
    { ...good, subjects: [] },
    { ...good, verbs: ['all'] },
    { ...good, redactions: ['secrets'] },
    { ...good, subjects: [{ kind: 'Everybody', name: 'x' }] },
    { ...good, namespaceSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
  ])
    assert.ok('problem' in parseFlowAccess(object(bad)), JSON.stringify(bad));
});

test('grantsOf() goes by user, group and service account, by name and by labels of the namespace', () => {
  const parsed = parseFlowAccess(
    object({
      subjects: [
        { kind: 'User', name: 'ann' },
        { kind: 'Group', name: 'team' },
        { kind: 'ServiceAccount', name: 'reader', namespace: 'shop' },
        { kind: 'ServiceAccount', name: 'nowhere' },
      ],
      namespaces: ['named'],
      namespaceSelector: { matchLabels: { owner: 'team' } },
      verbs: ['flows'],
    }),
  );
  assert.ok('row' in parsed);
  const granted = (name: string, groups: string[], namespace: string, labels?: Record<string, string>) =>
    grantsOf([parsed.row], { name, groups }, namespace, labels).length > 0;
  assert.ok(granted('ann', [], 'named'));
  assert.ok(granted('bob', ['team'], 'named'));
  assert.ok(granted('system:serviceaccount:shop:reader', [], 'any', { owner: 'team' }));
  assert.ok(!granted('team', [], 'named'), 'a user of a group’s name');
  assert.ok(!granted('bob', ['ann'], 'named'), 'a group of a user’s name');
  assert.ok(!granted('system:serviceaccount:other:reader', [], 'named'));
  assert.ok(!granted('system:serviceaccount:undefined:nowhere', [], 'named'));
  assert.ok(!granted('ann', [], 'other', { owner: 'somebody' }));
  assert.ok(!granted('ann', [], 'other'), 'labels that are not known');
});

test('an empty selector selects every namespace, none selects none', () => {
  const spec = { subjects: [{ kind: 'User', name: 'ann' }], verbs: ['flows'] };
  const [all, none] = [parseFlowAccess(object({ ...spec, namespaceSelector: {} })), parseFlowAccess(object(spec))];
  assert.ok('row' in all && 'row' in none);
  assert.equal(grantsOf([all.row], { name: 'ann', groups: [] }, 'x', {}).length, 1);
  assert.equal(grantsOf([none.row], { name: 'ann', groups: [] }, 'x', {}).length, 0);
});

test('rightsKey() is the same for the same rights in another order', () => {
  const one = { processes: true, redactions: new Set(['dns', 'labels'] as const) };
  const two = { processes: true, redactions: new Set(['labels', 'dns'] as const) };
  assert.equal(
    rightsKey(
      new Map([
        ['a', one],
        ['b', two],
      ]),
    ),
    rightsKey(
      new Map([
        ['b', one],
        ['a', two],
      ]),
    ),
  );
  assert.notEqual(rightsKey(new Map([['a', one]])), rightsKey(new Map([['a', { ...one, processes: false }]])));
});
