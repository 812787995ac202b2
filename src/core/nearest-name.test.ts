import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearestName } from './nearest-name.ts';

test('nearestName() finds what was meant, and nothing for what is nothing like it', () => {
  const names = ['ingress', 'egress', 'podSelector', 'policyTypes'];
  assert.equal(nearestName('ingres', names), 'ingress');
  assert.equal(nearestName('podselector', names), 'podSelector');
  assert.equal(nearestName('policyTpyes', names), 'policyTypes');
  assert.equal(nearestName('status', names), undefined);
  assert.equal(nearestName('x'.repeat(100_000), names), undefined);
});
