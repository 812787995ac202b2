import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WeirError } from '../src/core/errors.ts';
import { waitFor } from './wait.ts';

test('waitFor() gives what the check finds, also after failures', async () => {
  let calls = 0;
  const check = async () => {
    calls++;
    if (calls === 1) throw new Error('not yet');
    return calls === 3 ? 'found' : undefined;
  };
  assert.equal(await waitFor('it', check, 5_000, 1), 'found');
});

test('waitFor() says what did not come, and the last failure', async () => {
  const check = async () => {
    throw new Error('connection refused');
  };
  await assert.rejects(waitFor('the server', check, 5, 1), {
    code: 'LAB_TIMEOUT',
    message: /gave up waiting for the server after .* s: connection refused/,
  });
});

test('waitFor() ends at once with what cannot be waited for', async () => {
  const error = new WeirError('LAB_NOT_RUNNING', 'it has ended');
  await assert.rejects(
    waitFor('it', async () => Promise.reject(error), 60_000),
    error,
  );
});
