import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explainTls } from './explain-tls.ts';

const error = (code: string, more = {}) => Object.assign(new Error('words of OpenSSL'), { code, ...more });

test('explainTls() says what to do, with the code', () => {
  assert.equal(
    explainTls(error('SELF_SIGNED_CERT_IN_CHAIN')),
    'the receiver’s certificate is of no authority that is trusted: give its authority as tls.ca (SELF_SIGNED_CERT_IN_CHAIN)',
  );
  assert.match(
    explainTls(error('ERR_TLS_CERT_ALTNAME_INVALID', { reason: 'Host: a. is not in the cert’s altnames: DNS:b' })),
    /DNS:b\. Give one of them as tls\.serverName \(ERR_TLS/,
  );
});

test('explainTls() leaves other errors as they are', () => {
  assert.equal(explainTls(error('ECONNREFUSED')), 'words of OpenSSL');
  assert.equal(explainTls(new Error('no code')), 'no code');
});
