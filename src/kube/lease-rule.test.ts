import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heldUntilMs, isNewer, nextStep } from './lease-rule.ts';

const terms = { durationMs: 1000, renewMs: 300 };
const record = (holder: string | undefined) => ({ holder, durationMs: 1000, version: '7' });

test('nextStep() looks first, makes a lease that is not there, takes one that was given back', () => {
  assert.deepEqual(nextStep('me', undefined, terms, undefined, 0), { step: 'look' });
  assert.deepEqual(nextStep('me', { record: undefined, sinceMs: 0 }, terms, undefined, 0), { step: 'create' });
  assert.deepEqual(nextStep('me', { record: record(undefined), sinceMs: 0 }, terms, undefined, 0), { step: 'take' });
});

test('nextStep() takes another’s lease only after it was seen unchanged for its whole duration', () => {
  const seen = { record: record('other'), sinceMs: 500 };
  assert.deepEqual(nextStep('me', seen, terms, undefined, 1499), { step: 'wait', untilMs: 1500 });
  assert.deepEqual(nextStep('me', seen, terms, undefined, 1500), { step: 'take' });
  const longer = { record: { ...record('other'), durationMs: 5000 }, sinceMs: 500 };
  assert.deepEqual(nextStep('me', longer, terms, undefined, 1500), { step: 'wait', untilMs: 5500 });
});

test('nextStep() renews its own lease when that is due, and at once when no renewal of its own counts', () => {
  const seen = { record: record('me'), sinceMs: 0 };
  assert.deepEqual(nextStep('me', seen, terms, 100, 399), { step: 'wait', untilMs: 400 });
  assert.deepEqual(nextStep('me', seen, terms, 100, 400), { step: 'renew' });
  assert.deepEqual(nextStep('me', seen, terms, undefined, 0), { step: 'renew' });
});

test('a holder stops counting on its lease before anybody else may take it', () => {
  assert.ok(heldUntilMs(0, terms) < 1000);
});

test('isNewer() compares versions as numbers', () => {
  assert.equal(isNewer('10', '9'), true);
  assert.equal(isNewer('9', '10'), false);
  assert.equal(isNewer('9', '9'), false);
  assert.equal(isNewer('9', undefined), true);
});
