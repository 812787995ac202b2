import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSetDigest, groupContent, policyContent, serviceContent, stagingContent } from './policy-digest.ts';

test('createSetDigest() is the same for the same set, whatever the way there', () => {
  const forward = createSetDigest();
  for (const key of ['a', 'b', 'c']) assert.equal(forward.set(key, `as ${key}`), true);
  const back = createSetDigest();
  for (const key of ['c', 'b', 'a']) back.set(key, 'another');
  assert.notEqual(back.text, forward.text);
  for (const key of ['c', 'b', 'a']) back.set(key, `as ${key}`);
  assert.equal(back.text, forward.text);
  assert.equal(back.set('a', 'as a'), false);
  assert.equal(back.set('a', undefined), true);
  assert.equal(back.set('a', undefined), false);
  assert.notEqual(back.text, forward.text);
});

test('contents tell apart what policies do, and nothing else', () => {
  const policy = { uid: 'u', generation: 1, enforcement: 'default' as const };
  assert.equal(policyContent(policy), policyContent({ ...policy, status: {} } as typeof policy));
  assert.notEqual(policyContent(policy), policyContent({ ...policy, generation: 2 }));
  assert.notEqual(policyContent(policy), policyContent({ ...policy, enforcement: 'staged' }));
  assert.deepEqual([stagingContent(undefined), stagingContent(false)], [undefined, 'false']);
  const group = { name: 'g', labels: { a: '1', b: '2' }, cidrs: ['192.0.2.0/24'], problems: [] };
  assert.equal(groupContent(group), groupContent({ ...group, labels: { b: '2', a: '1' } }));
  assert.notEqual(groupContent(group), groupContent({ ...group, cidrs: ['192.0.2.0/25'] }));
  const service = { key: 'a/s', namespace: 'a', name: 's', labels: {}, addresses: ['10.0.0.1'] };
  assert.notEqual(serviceContent(service), serviceContent({ ...service, addresses: [] }));
  assert.notEqual(serviceContent(service), serviceContent({ ...service, selector: { app: 'a' } }));
});
