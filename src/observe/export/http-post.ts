// POST with a deadline, over connections that are kept: what receivers that speak HTTP have in common.
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { explainTls } from './explain-tls.ts';
import type { AuthConfig, TlsConfig } from './export-config.ts';
import { ReceiverBusy } from './sink.ts';

/** What came back. */
export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
  readonly retryAfterMs: number | undefined;
}

/** Posts to one server. */
export interface HttpClient {
  post(path: string, headers: Record<string, string>, body: string, signal: AbortSignal): Promise<HttpAnswer>;
  close(): void;
}

/** In a thread of its own: batches may be large, and this one does policy, too. */
const gzip = promisify(zlib.gzip) as (data: string, options: zlib.ZlibOptions) => Promise<Buffer>;
const maxAnswerBytes = 32 * 1024 * 1024;
/** Below this, compressing costs more than it saves. */
const gzipFromBytes = 1024;

/** Makes a client of `url`; paths are added to that of the url. */
export function createHttpClient(url: string, options: { tls?: TlsConfig | undefined; gzip: boolean }): HttpClient {
  const base = new URL(url);
  const secure = base.protocol === 'https:';
  const kept = { keepAlive: true, maxSockets: 2 };
  const agent = secure ? new https.Agent(kept) : new http.Agent(kept);
  return {
    async post(path, headers, body, signal) {
      const small = !options.gzip || body.length < gzipFromBytes;
      const bytes = small ? Buffer.from(body) : await gzip(body, { level: 1 });
      return await new Promise<HttpAnswer>((resolve, reject) => {
        const request = (secure ? https : http).request(
          {
            agent,
            signal,
            // Files are changed in place. The agent knows connections of other certificates apart.
            ...(secure && tlsOptions(options.tls)),
            method: 'POST',
            hostname: base.hostname.replace(/^\[|\]$/g, ''),
            port: base.port || (secure ? 443 : 80),
            path: base.pathname.replace(/\/$/, '') + path,
            headers: {
              ...headers,
              'content-length': bytes.length,
              ...(small ? {} : { 'content-encoding': 'gzip' }),
            },
          },
          (response) => {
            const parts: Buffer[] = [];
            let length = 0;
            response.on('data', (part: Buffer) => {
              length += part.length;
              if (length > maxAnswerBytes) request.destroy(new Error('the answer is too long'));
              else parts.push(part);
            });
            response.on('error', (error) => reject(new Error(explainTls(error), { cause: error })));
            response.on('aborted', () => reject(new Error('the answer broke off')));
            response.on('end', () =>
              resolve({
                status: response.statusCode ?? 0,
                text: Buffer.concat(parts).toString('utf8'),
                retryAfterMs: parseRetryAfter(response.headers['retry-after'], Date.now()),
              }),
            );
          },
        );
        request.on('error', (error) => reject(new Error(explainTls(error), { cause: error })));
        request.end(bytes);
      });
    },
    close: () => agent.destroy(),
  };
}

/** Seconds, or a date. */
function parseRetryAfter(value: string | undefined, nowMs: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

/** For sockets and requests of TLS. Files are read now. */
export function tlsOptions(config: TlsConfig | undefined) {
  if (config === undefined) return {};
  return {
    ...(config.ca && { ca: readFileSync(config.ca) }),
    ...(config.cert && { cert: readFileSync(config.cert) }),
    ...(config.key && { key: readFileSync(config.key) }),
    ...(config.serverName && { servername: config.serverName }),
    rejectUnauthorized: config.verify,
  };
}

/** The value of an Authorization header; read each time, because secrets are changed in place. */
export function authorization(config: AuthConfig | undefined, scheme: string): Record<string, string> {
  if (config?.tokenFile !== undefined) return { authorization: `${scheme} ${readSecret(config.tokenFile)}` };
  if (config?.user === undefined || config.passwordFile === undefined) return {};
  const pair = `${config.user}:${readSecret(config.passwordFile)}`;
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

/** The content of a file without the line's end. */
export function readSecret(file: string): string {
  return readFileSync(file, 'utf8').trim();
}

/** JSON of an answer; undefined when it is none. */
export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** An object's member, whatever the object is. */
export function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** What to throw for an answer that took nothing and says nothing about single events. */
export function notTaken({ status, text, retryAfterMs }: HttpAnswer): ReceiverBusy {
  const said = text.replace(/\s+/g, ' ').trim().slice(0, 200);
  return new ReceiverBusy(`the receiver answers ${status}${said === '' ? '' : `: ${said}`}`, retryAfterMs);
}
