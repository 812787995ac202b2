import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CookieRow, type PolicyObjectRow, policyKey } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createRevisedRules, logsOf, policiesOf } from './flow-policies.ts';
import { denyCookie } from './testdata/scene.ts';

const policy = (name: string, specs: PolicyObjectRow['specs'] = []): PolicyObjectRow => ({
  key: policyKey('NetworkPolicy', 'shop', name),
  kind: 'NetworkPolicy',
  namespace: 'shop',
  name,
  enforcement: 'default',
  specs,
  unenforced: [],
});

function setUp() {
  const policies = createTable<PolicyObjectRow>({ name: 'policies', key: (row) => row.key });
  policies.upsert([policy('other'), policy('default-deny')]);
  const rules = createRevisedRules(
    (cookie): CookieRow | undefined => (cookie === 8 ? denyCookie : undefined),
    policies,
  );
  const revision = () => policiesOf(rules.find(8)!)[0]!.revision;
  return { policies, rules, revision };
}

test('createRevisedRules() gives each policy the revision at which it was last taken', () => {
  const { policies, rules, revision } = setUp();
  assert.equal(revision(), 1);
  assert.equal(rules.find(8), rules.find(8));
  const before = rules.find(8)!;
  policies.upsert(policy('other', [{} as never]));
  assert.equal(revision(), 1);
  policies.upsert(policy('default-deny', [{} as never]));
  assert.equal(revision(), policies.revision);
  assert.equal(policiesOf(before)[0]!.revision, 1, 'a flow that was read before keeps what held then');
  assert.equal(rules.find(9), undefined);
});

test('createRevisedRules() remembers a policy that has gone, for events on their way', () => {
  const { policies, rules, revision } = setUp();
  policies.delete(policyKey('NetworkPolicy', 'shop', 'default-deny'));
  assert.equal(revision(), 1);
  rules.close();
  policies.upsert(policy('default-deny'));
  assert.equal(revision(), 1);
});

test('logsOf() gives what the policies of both ends want flows to carry, each once', () => {
  const rules = (...logs: (string | undefined)[]) => ({
    ...denyCookie,
    rules: logs.map((log) => ({ ...denyCookie.rules[0]!, ...(log !== undefined && { log }) })),
  });
  assert.deepEqual(logsOf(rules('audit', undefined, 'team-a'), rules('audit', '')), ['audit', 'team-a']);
  assert.deepEqual(logsOf(rules(undefined), undefined), []);
});
