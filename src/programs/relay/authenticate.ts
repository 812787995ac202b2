// Who a caller is: by its token, or else by its certificate. Tokens are remembered by their digest and for a short time, so
// that one that was revoked is out of use within seconds.
import { hash } from 'node:crypto';
import { errorText } from '../../core/errors.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { AccessUser } from '../../observe/access/flow-access.ts';
import type { RpcCall } from '../../observe/rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../../observe/rpc/rpc-status.ts';
import { type OidcVerifier, TokenRefused } from './oidc.ts';

/** Says who calls, or throws UNAUTHENTICATED; UNAVAILABLE when it cannot be found out. */
export type Authenticate = (call: Pick<RpcCall, 'peer' | 'authorization'>) => Promise<AccessUser>;

/** Asks somebody who knows the token: who it is and until when; undefined when nobody is. */
export type ReviewToken = (token: string) => Promise<{ user: AccessUser; untilMs: number }>;

const rememberedMs = 5_000;
const maxRemembered = 4_096;
/** Strangers may send as many tokens as they like. */
const maxAtOnce = 32;
const maxTokenBytes = 14 << 10;

/** Makes it. `nowMs` is for tests. */
export function createAuthenticate(options: {
  readonly review: ReviewToken;
  readonly oidc?: OidcVerifier;
  readonly nowMs?: () => number;
}): Authenticate {
  const { review, oidc, nowMs = Date.now } = options;
  const known = new Map<string, { atMs: number; answer: ReturnType<ReviewToken> }>();
  let asking = 0;

  async function ask(token: string): ReturnType<ReviewToken> {
    if (asking >= maxAtOnce) throw new RpcError(RpcCode.resourceExhausted, 'too many tokens are being looked at');
    asking++;
    try {
      return oidc?.isMine(token) === true ? await oidc.verify(token) : await review(token);
    } catch (error) {
      if (error instanceof TokenRefused)
        throw new RpcError(RpcCode.unauthenticated, `the token is not valid: ${error.message}`);
      if (error instanceof RpcError) throw error;
      throw new RpcError(RpcCode.unavailable, `the token cannot be looked at: ${errorText(error)}`);
    } finally {
      asking--;
    }
  }

  function remembered(token: string): ReturnType<ReviewToken> {
    const key = hash('sha256', token, 'hex');
    const before = known.get(key);
    if (before !== undefined && nowMs() - before.atMs < rememberedMs) return before.answer;
    known.delete(key);
    const entry = { atMs: nowMs(), answer: ask(token) };
    known.set(key, entry);
    if (known.size > maxRemembered) known.delete(known.keys().next().value!);
    // That it could not be found out is no answer.
    entry.answer.catch((error) => {
      if (error.code !== RpcCode.unauthenticated && known.get(key) === entry) known.delete(key);
    });
    return entry.answer;
  }

  return async ({ peer, authorization }) => {
    if (authorization !== undefined) {
      const token = tokenIn(authorization);
      if (token === undefined || token.length > maxTokenBytes)
        throw new RpcError(RpcCode.unauthenticated, 'authorization: give a token, as `Bearer TOKEN` or as a password');
      const { user, untilMs } = await remembered(token);
      if (untilMs <= nowMs()) throw new RpcError(RpcCode.unauthenticated, 'the token is not valid: it has expired');
      return user;
    }
    const { name, groups = [], validUntilMs } = peer;
    if (name === undefined || name === '')
      throw new RpcError(
        RpcCode.unauthenticated,
        'nobody is known: show a certificate of the clients’ authority, or a token (weir observe --token-file, or the header authorization: Bearer)',
      );
    if (validUntilMs === undefined || !(validUntilMs > nowMs()))
      throw new RpcError(RpcCode.unauthenticated, 'the certificate has ended');
    return { name, groups };
  };
}

/** A token by itself, or as the password of clients that know no other secret. */
function tokenIn(authorization: string): string | undefined {
  const [, scheme, value = ''] = /^(Bearer|Basic) +([^\s]+)$/i.exec(authorization) ?? [];
  if (scheme?.toLowerCase() !== 'basic') return value || undefined;
  const pair = Buffer.from(value, 'base64').toString();
  const token = pair.slice(pair.indexOf(':') + 1);
  return pair.includes(':') && token !== '' ? token : undefined;
}

/** Has tokens looked at by Kubernetes. */
export function kubernetesReview(client: KubeClient): ReviewToken {
  return async (token) => {
    const { status } = await client.request<{
      status?: {
        authenticated?: boolean;
        user?: { username?: string; uid?: string; groups?: string[]; extra?: Record<string, string[]> };
      };
    }>('POST', '/apis/authentication.k8s.io/v1/tokenreviews', {
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } },
      timeoutMs: 5_000,
    });
    const { username, uid, groups = [], extra } = status?.user ?? {};
    // What Kubernetes says against it may quote the token.
    if (status?.authenticated !== true || username === undefined || username === '')
      throw new TokenRefused('Kubernetes does not know it, or it has expired');
    return { user: { name: username, uid, groups, extra }, untilMs: Number.POSITIVE_INFINITY };
  };
}
