import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { readPolicies } from '../../secure/policy/read-policies.ts';
import { followNodePolicies } from './node-policies.ts';

test('followNodePolicies() tells when the first policy for the node comes, and when the last one goes', () => {
  const table = createTable<PolicyRow>({ name: 'policies', key: (row) => row.key });
  let told = 0;
  const following = followNodePolicies(table, () => void told++);
  const [pods] = readPolicies([
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'p', namespace: 'shop' },
      spec: { podSelector: {} },
    },
  ]);
  const node = (key: string, more: Partial<PolicyRow> = {}): PolicyRow => ({
    ...pods!,
    key,
    subject: { kind: 'node' },
    ...more,
  });
  table.upsert([pods!, node('essential', { tier: 'essential' })]);
  assert.deepEqual([following.any, told], [true, 0], 'there may be some that have not been read');
  table.markInitialized();
  assert.deepEqual([following.any, told], [false, 1]);
  table.upsert([node('a'), node('b', { staged: true })]);
  assert.deepEqual([following.any, told], [true, 2]);
  table.delete('a');
  assert.deepEqual([following.any, told], [true, 2]);
  table.upsert(node('b', { subject: pods!.subject }));
  assert.deepEqual([following.any, told], [false, 3]);
});
