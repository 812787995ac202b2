// Tokens of an OpenID Connect provider: signatures by its keys, and the claims that must hold. The algorithms are those of
// public keys only; which one a key is for is said by the key, not by the token.
import { createPublicKey, constants as crypto, type KeyObject, verify, type webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as https from 'node:https';
import { z } from 'zod';
import type { AccessUser } from '../../observe/access/flow-access.ts';

/** Whose tokens are taken, and what they say. */
export interface OidcSettings {
  readonly issuer: string;
  readonly audience: string;
  /** The keys: a file, or where they are on the network; without it the issuer's discovery says. */
  readonly jwks?: string;
  readonly caFile?: string;
  readonly usernameClaim: string;
  readonly groupsClaim: string;
  /** Stands before names and groups, so that none is taken for one of the cluster's own. */
  readonly prefix: string;
}

/** Takes tokens of one issuer. */
export interface OidcVerifier {
  /** Whether a token says that it is of this issuer; it may say so wrongly. */
  isMine(token: string): boolean;
  /** Who it is, and until when. Throws TokenRefused when it does not hold, another error when the keys cannot be had. */
  verify(token: string): Promise<{ user: AccessUser; untilMs: number }>;
}

/** A token that does not hold. The reason has nothing of it. */
export class TokenRefused extends Error {}

const leewayMs = 30_000;
const keysMs = 300_000;
/** A token with a key that is not known asks for the keys again, this often at most. */
const unknownKeyMs = 10_000;
const fetchTimeoutMs = 5_000;
const maxBytes = 1 << 20;
const leastRsaBits = 2048;

const headerSchema = z.object({ alg: z.string(), kid: z.string().optional(), crit: z.unknown().optional() });
const claimsSchema = z.looseObject({
  iss: z.string(),
  aud: z.union([z.string(), z.array(z.string())]),
  exp: z.number(),
  nbf: z.number().optional(),
});
const keysSchema = z.object({
  keys: z.array(
    z.looseObject({
      kty: z.string(),
      kid: z.string().optional(),
      use: z.string().optional(),
      alg: z.string().optional(),
    }),
  ),
});

interface Algorithm {
  readonly hash: string | null;
  readonly type: string;
  readonly curve?: string;
  readonly pss?: boolean;
}
const algorithms: Readonly<Record<string, Algorithm>> = {
  ...Object.fromEntries(
    (['256', '384', '512'] as const).flatMap((bits) => [
      [`RS${bits}`, { hash: `sha${bits}`, type: 'rsa' }],
      [`PS${bits}`, { hash: `sha${bits}`, type: 'rsa', pss: true }],
    ]),
  ),
  ES256: { hash: 'sha256', type: 'ec', curve: 'prime256v1' },
  ES384: { hash: 'sha384', type: 'ec', curve: 'secp384r1' },
  ES512: { hash: 'sha512', type: 'ec', curve: 'secp521r1' },
  EdDSA: { hash: null, type: 'ed25519' },
};

interface SigningKey {
  readonly kid: string | undefined;
  readonly alg: string | undefined;
  readonly key: KeyObject;
}

/** Makes a verifier; nothing is read before the first token. `nowMs` is for tests. */
export function createOidcVerifier(settings: OidcSettings, nowMs: () => number = Date.now): OidcVerifier {
  let keys: readonly SigningKey[] = [];
  let keysAtMs = Number.NEGATIVE_INFINITY;
  let loading: Promise<void> | undefined;

  async function load(): Promise<void> {
    const { jwks, issuer, caFile } = settings;
    const ca = caFile === undefined ? undefined : await readFile(caFile);
    let where = jwks;
    if (where === undefined) {
      const found = JSON.parse(await get(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, ca));
      const discovery = z.object({ issuer: z.string(), jwks_uri: z.string() }).parse(found);
      if (discovery.issuer !== issuer) throw new Error(`the discovery of ${issuer} is of ${discovery.issuer}`);
      where = discovery.jwks_uri;
    }
    const text = /^[a-z]+:\/\//.test(where) ? await get(where, ca) : await readFile(where, 'utf8');
    keys = keysSchema.parse(JSON.parse(text)).keys.flatMap((jwk) => {
      if (jwk.use !== undefined && jwk.use !== 'sig') return [];
      try {
        return [
          { kid: jwk.kid, alg: jwk.alg, key: createPublicKey({ key: jwk as webcrypto.JsonWebKey, format: 'jwk' }) },
        ];
      } catch {
        // A key of a kind that is not known here signs nothing that is taken.
        return [];
      }
    });
    keysAtMs = nowMs();
  }
  function fresh(maxAgeMs: number): Promise<void> {
    if (nowMs() - keysAtMs < maxAgeMs) return Promise.resolve();
    loading ??= load().finally(() => {
      loading = undefined;
    });
    return loading;
  }

  return {
    isMine(token) {
      try {
        return partsOf(token).claims.iss === settings.issuer;
      } catch {
        return false;
      }
    },
    async verify(token) {
      const { header, claims, signed, signature } = partsOf(token);
      const algorithm = Object.hasOwn(algorithms, header.alg) ? algorithms[header.alg] : undefined;
      if (algorithm === undefined || header.crit !== undefined)
        throw new TokenRefused('it is signed in a way that is not taken');
      await fresh(keysMs);
      const find = () =>
        keys.filter(
          ({ kid, alg, key }) =>
            (header.kid === undefined ? keys.length === 1 : kid === header.kid) &&
            (alg === undefined || alg === header.alg) &&
            fits(key, algorithm),
        );
      if (find().length === 0) await fresh(unknownKeyMs);
      const holds = find().some(({ key }) =>
        verify(
          algorithm.hash,
          signed,
          {
            key,
            dsaEncoding: 'ieee-p1363',
            ...(algorithm.pss === true && {
              padding: crypto.RSA_PKCS1_PSS_PADDING,
              saltLength: crypto.RSA_PSS_SALTLEN_DIGEST,
            }),
          },
          signature,
        ),
      );
      if (!holds) throw new TokenRefused('its signature is of no key of the issuer');
      if (claims.iss !== settings.issuer) throw new TokenRefused('it is of another issuer');
      if (![claims.aud].flat().includes(settings.audience)) throw new TokenRefused('it is for another audience');
      const untilMs = claims.exp * 1000 + leewayMs;
      if (!(untilMs > nowMs())) throw new TokenRefused('it has expired');
      if (claims.nbf !== undefined && !(claims.nbf * 1000 - leewayMs <= nowMs()))
        throw new TokenRefused('it is not valid yet');
      const name = claims[settings.usernameClaim];
      if (typeof name !== 'string' || name === '')
        throw new TokenRefused(`it has no claim ${settings.usernameClaim} with a name`);
      if (settings.usernameClaim === 'email' && claims.email_verified === false)
        throw new TokenRefused('its address is not verified');
      const groups = [claims[settings.groupsClaim] ?? []].flat().filter((each) => typeof each === 'string');
      const { prefix } = settings;
      return { user: { name: prefix + name, groups: groups.map((each) => prefix + each) }, untilMs };
    },
  };
}

function partsOf(token: string) {
  const [head, body, signature, ...more] = token.split('.');
  if (head === undefined || body === undefined || signature === undefined || more.length > 0)
    throw new TokenRefused('it is no JSON Web Token');
  try {
    const read = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString());
    return {
      header: headerSchema.parse(read(head)),
      claims: claimsSchema.parse(read(body)),
      signed: Buffer.from(`${head}.${body}`),
      signature: Buffer.from(signature, 'base64url'),
    };
  } catch {
    throw new TokenRefused('it is no JSON Web Token with issuer, audience and end');
  }
}

function fits({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, algorithm: Algorithm): boolean {
  if (type !== algorithm.type) return false;
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= leastRsaBits;
  return algorithm.curve === undefined || details?.namedCurve === algorithm.curve;
}

/** What is at an address of HTTPS; anything else would let whoever is in between sign tokens. */
function get(url: string, ca: Buffer | undefined): Promise<string> {
  if (!url.startsWith('https://')) return Promise.reject(new Error(`${url} is no address of HTTPS`));
  return new Promise((resolve, reject) => {
    const request = https.get(url, { ca, signal: AbortSignal.timeout(fetchTimeoutMs) }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('error', reject);
      response.on('data', (part: string) => {
        text += part;
        if (text.length > maxBytes) request.destroy(new Error(`${url} answers with more than ${maxBytes} bytes`));
      });
      response.on('end', () =>
        response.statusCode === 200 ? resolve(text) : reject(new Error(`${url} answers ${response.statusCode}`)),
      );
    });
    request.on('error', reject);
  });
}
