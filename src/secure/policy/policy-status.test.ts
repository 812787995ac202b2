import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NodeProgress, policyConditions } from './policy-status.ts';

const reached = (node: string): NodeProgress => ({ node, reached: true, revision: 7 });
const late = (node: string): NodeProgress => ({ node, reached: false });
const fine = { unenforced: [] };
const said = (...args: Parameters<typeof policyConditions>) =>
  policyConditions(...args).map(({ type, status, reason }) => `${type} ${status} ${reason}`);

test('policyConditions() says where a policy is in force', () => {
  assert.deepEqual(said(fine, false, [reached('a'), reached('b')]), [
    'Valid True Understood',
    'Enforced True Enforced',
    'a/Enforced True Enforced',
    'b/Enforced True Enforced',
  ]);
  const message = (nodes: NodeProgress[]) => policyConditions(fine, false, nodes)[1]!.message;
  assert.equal(
    message([reached('a')]),
    message([reached('a'), reached('b')]),
    'a node that comes is no news of a policy',
  );
  assert.deepEqual(said(fine, false, [])[1], 'Enforced False Pending', 'nobody enforces it');
  const [, cluster] = policyConditions(fine, false, [reached('a'), late('b')]);
  assert.deepEqual([cluster!.status, cluster!.message], ['False', 'In force on 1 of 2 nodes; not on b']);
});

test('policyConditions() names what is not understood, not enforced yet, staged, and without room', () => {
  assert.deepEqual(said({ error: 'spec is missing', unenforced: [] }, false, [])[0], 'Valid False NotUnderstood');
  const [, part] = policyConditions({ unenforced: ['spec.egress[0].toFQDNs'] }, false, [reached('a')]);
  assert.deepEqual([part!.status, part!.reason], ['False', 'InPart']);
  assert.match(part!.message, /spec\.egress\[0\]\.toFQDNs\. The others are, on every node that has reported/);
  assert.equal(said(fine, true, [reached('a')])[1], 'Enforced False Staged');
  assert.deepEqual(said(fine, false, [{ ...reached('a'), problem: 'no room' }]).slice(1), [
    'Enforced False Pending',
    'a/Enforced False NoRoom',
  ]);
  assert.equal(
    said(fine, false, [{ ...reached('a'), problem: 'a bug', reason: 'Failed' }])[2],
    'a/Enforced False Failed',
  );
});

test('policyConditions() says what a policy does beside what it seems to do, and what a kind makes of what is not enforced', () => {
  const remarks = ['spec.ingressDeny[0].toPorts[0] names no ports, so that it denies nothing'];
  const [valid, cluster] = policyConditions({ ...fine, remarks }, false, [reached('a')]);
  assert.deepEqual([valid!.status, valid!.reason, cluster!.status], ['True', 'WithRemarks', 'True']);
  assert.match(valid!.message, /understood; spec\.ingressDeny\[0\]\.toPorts\[0\] names no ports/);
  const unenforced = ['spec.egress[0].to[0].domainNames'];
  const part = policyConditions({ unenforced, kind: 'ClusterNetworkPolicy' }, false, [reached('a')])[1]!;
  assert.equal(part.reason, 'InPart');
  assert.match(part.message, /any other counts for nothing: spec\.egress\[0\]\.to\[0\]\.domainNames/);
  assert.doesNotMatch(part.message, /isolate/);
});

test('policyConditions() gives nodes no conditions of their own when there are many, and names some that lag', () => {
  const nodes = Array.from({ length: 40 }, (_, i) => late(`n${i}`));
  const conditions = policyConditions(fine, false, nodes);
  assert.equal(conditions.length, 2);
  assert.match(conditions[1]!.message, /on 0 of 40 nodes; not on n0, n1, n2, n3, n4 and others/);
});
