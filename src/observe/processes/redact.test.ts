import assert from 'node:assert/strict';
import { test } from 'node:test';
import { quoteArguments, redactArguments, secretPatterns, withoutSecretValues } from './redact.ts';

const shown = (...args: string[]) => redactArguments(quoteArguments(withoutSecretValues(args)), secretPatterns);

test('what looks like a secret is not shown, and the rest is', () => {
  assert.equal(shown('--password=hunter2', '--user', 'bob'), '--password=*** --user bob');
  assert.equal(shown('--db-password', 'hunter2', '-v'), '--db-password *** -v');
  assert.equal(shown('--token', 'a b c'), '--token ***');
  for (const name of [
    'SECRET_KEY',
    '--secret-key',
    'ENCRYPTION_KEY',
    '--credentials',
    'DB_PASSWORD_PROD',
    '--passphrase',
  ])
    assert.equal(shown(`${name}=correct horse's`), `${name}=***`);
  assert.equal(shown('--key', 'x', '-v'), '--key *** -v');
  assert.equal(shown('sh', '-c', 'DB_PASSWORD=hunter2 run --api-key=abc'), "sh -c 'DB_PASSWORD=*** run --api-key=***'");
  assert.equal(shown('-H', 'Authorization: Negotiate abc def'), "-H 'Authorization: Negotiate ***'");
  assert.equal(shown('-H', 'Authorization: Bearer abc.def'), "-H 'Authorization: Bearer ***'");
  assert.equal(shown('postgres://bob:hunter2@db/shop'), 'postgres://bob:***@db/shop');
  assert.equal(shown('-u', 'bob:hunter2', 'http://x'), '-u bob:*** http://x');
  assert.equal(shown('AWS_SECRET_ACCESS_KEY=abc'), 'AWS_SECRET_ACCESS_KEY=***');
});

test('harmless arguments stay as they are', () => {
  for (const args of [
    ['--port', '8080'],
    ['-c', 'echo passwords are fine'],
    ['/app/token-service', '--listen', ':80'],
  ])
    assert.equal(shown(...args), quoteArguments(args));
});

test('a pattern of the operator replaces its first group, or all that it matches', () => {
  assert.equal(redactArguments('pin 1234 for 5', [/pin (\d+)/g]), 'pin *** for 5');
  assert.equal(redactArguments('card 4111-1111', [/\d{4}-\d{4}/g]), 'card ***');
});

test('arguments are quoted so that a shell would take them apart again', () => {
  assert.equal(quoteArguments(['-c', "it's", '', 'a b']), `-c 'it'\\''s' '' 'a b'`);
});

test('arguments that are made for it take no time', () => {
  const line = `${'a-'.repeat(1024)} ${'key.'.repeat(400)} ${'x:'.repeat(500)}`;
  // Each pattern is tried a few thousand times at most, not millions of times: this would not come back.
  for (let i = 0; i < 2_000; i++) redactArguments(line, secretPatterns);
});
