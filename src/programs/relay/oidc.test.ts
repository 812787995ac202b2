import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createAuthenticate } from './authenticate.ts';
import { createOidcVerifier, TokenRefused } from './oidc.ts';

const issuer = 'https://login.example';
const nowMs = Date.UTC(2026, 0, 1);
const good = { iss: issuer, aud: 'weir', exp: nowMs / 1000 + 60, sub: 'ann', groups: ['team'] };
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(key: KeyObject, claims: object, header: object = { alg: 'ES256', kid: 'k1' }): string {
  const body = `${encode(header)}.${encode(claims)}`;
  return `${body}.${sign('sha256', Buffer.from(body), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

function scene(t: TestContext, clock = () => nowMs) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-oidc-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [own, strange] = [1, 2].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }));
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const jwks = join(folder, 'jwks.json');
  const write = (...keys: object[]) => writeFileSync(jwks, JSON.stringify({ keys }));
  const jwk = (key: KeyObject, kid: string) => ({ ...key.export({ format: 'jwk' }), kid });
  write(jwk(own!.publicKey, 'k1'), jwk(rsa.publicKey, 'r1'));
  const verifier = createOidcVerifier(
    { issuer, audience: 'weir', jwks, usernameClaim: 'sub', groupsClaim: 'groups', prefix: 'oidc:' },
    clock,
  );
  return { verifier, own: own!, strange: strange!, rsa, write, jwk };
}

test('a token of the issuer says who it is, with the prefix before names and groups', async (t) => {
  const { verifier, own, rsa } = scene(t);
  const expected = { name: 'oidc:ann', groups: ['oidc:team'] };
  assert.deepEqual((await verifier.verify(token(own.privateKey, good))).user, expected);
  assert.deepEqual(
    (await verifier.verify(token(rsa.privateKey, { ...good, aud: ['x', 'weir'] }, { alg: 'RS256', kid: 'r1' }))).user,
    expected,
  );
});

test('a token that does not hold is refused, and why is said', async (t) => {
  const { verifier, own, strange, rsa } = scene(t);
  const refused = (text: string, why: RegExp) =>
    assert.rejects(verifier.verify(text), (error: Error) => error instanceof TokenRefused && why.test(error.message));
  const of = (claims: object, header?: object) => token(own.privateKey, { ...good, ...claims }, header);
  await refused(token(strange.privateKey, good), /no key of the issuer/);
  await refused(of({}, { alg: 'ES256', kid: 'k2' }), /no key of the issuer/);
  await refused(of({}, { alg: 'RS256', kid: 'k1' }), /no key of the issuer/);
  await refused(token(rsa.privateKey, good, { alg: 'PS256', kid: 'r1' }), /no key of the issuer/);
  for (const alg of ['none', 'HS256', 'toString']) await refused(of({}, { alg, kid: 'k1' }), /in a way/);
  await refused(of({}, { alg: 'ES256', kid: 'k1', crit: ['x'] }), /in a way/);
  await refused(of({ iss: 'https://other.example' }), /another issuer/);
  await refused(of({ aud: 'other' }), /another audience/);
  await refused(of({ exp: nowMs / 1000 - 31 }), /expired/);
  await refused(of({ nbf: nowMs / 1000 + 31 }), /not valid yet/);
  await refused(of({ sub: undefined }), /no claim sub/);
  await refused(of({ exp: undefined }), /no JSON Web Token/);
  await refused('a.b', /no JSON Web Token/);
  const [head, , signature] = of({}).split('.');
  await refused(`${head}.${encode({ ...good, sub: 'root' })}.${signature}`, /no key of the issuer/);
});

test('keys are read again for one that is not known, and when they are old', async (t) => {
  let now = nowMs;
  const { verifier, own, strange, write, jwk } = scene(t, () => now);
  await verifier.verify(token(own.privateKey, good));
  write(jwk(strange.publicKey, 'k2'));
  const next = token(strange.privateKey, good, { alg: 'ES256', kid: 'k2' });
  await assert.rejects(verifier.verify(next));
  now += 10_000;
  assert.equal((await verifier.verify(next)).user.name, 'oidc:ann');
  await assert.rejects(verifier.verify(token(own.privateKey, good)), TokenRefused);
});

test('createAuthenticate() asks the issuer’s keys for its tokens and Kubernetes for others, each once in a while', async (t) => {
  let now = nowMs;
  const { verifier, own } = scene(t, () => now);
  const asked: string[] = [];
  let answer = async () => ({ user: { name: 'bob', groups: [] as string[] }, untilMs: Number.POSITIVE_INFINITY });
  const authenticate = createAuthenticate({
    oidc: verifier,
    nowMs: () => now,
    async review(text) {
      asked.push(text);
      return answer();
    },
  });
  const peer = { address: '192.0.2.1' };
  const as = async (authorization: string) => (await authenticate({ peer, authorization })).name;
  assert.equal(await as(`Bearer ${token(own.privateKey, good)}`), 'oidc:ann');
  assert.deepEqual(asked, []);
  assert.equal(await as('Bearer t1'), 'bob');
  assert.equal(await as(`Basic ${Buffer.from('x:t1').toString('base64')}`), 'bob');
  assert.deepEqual(asked, ['t1']);
  answer = async () => {
    throw new TokenRefused('gone');
  };
  now += 5_000;
  await assert.rejects(as('Bearer t1'), { code: 16, message: /not valid: gone/ });
  answer = async () => {
    throw new Error('no way');
  };
  await assert.rejects(as('Bearer t2'), { code: 14 });
  await assert.rejects(as('Bearer t2'), { code: 14 });
  assert.deepEqual(asked, ['t1', 't1', 't2', 't2']);
  for (const wrong of ['t1', 'Bearer', 'Basic !', `Basic ${Buffer.from('nothing').toString('base64')}`, 'Digest x'])
    await assert.rejects(as(wrong), { code: 16, message: /give a token/ });
  now += 120_000;
  await assert.rejects(as(`Bearer ${token(own.privateKey, good)}`), { code: 16, message: /expired/ });
});

test('createAuthenticate() takes a certificate while it is valid, and a wrong token is not mended by one', async () => {
  const authenticate = createAuthenticate({
    nowMs: () => nowMs,
    review: async () => {
      throw new TokenRefused('no');
    },
  });
  const peer = { address: '192.0.2.1', name: 'ann', groups: ['team'], validUntilMs: nowMs + 1 };
  assert.deepEqual(await authenticate({ peer }), { name: 'ann', groups: ['team'] });
  await assert.rejects(authenticate({ peer: { ...peer, validUntilMs: nowMs } }), { code: 16 });
  await assert.rejects(authenticate({ peer: { ...peer, validUntilMs: Number.NaN } }), { code: 16 });
  await assert.rejects(authenticate({ peer: { address: '192.0.2.1' } }), { code: 16, message: /nobody is known/ });
  await assert.rejects(authenticate({ peer, authorization: 'Bearer x' }), { code: 16 });
});
