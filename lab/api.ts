// A client for the lab's own API server: plain requests with the administrator's certificate, over one kept connection.
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { WeirError } from '../src/core/errors.ts';
import { credentialFiles } from './credentials.ts';
import type { LabRecord } from './state.ts';

/** An object of the API, as far as the lab looks into it. */
export interface ApiObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    [field: string]: unknown;
  };
  // biome-ignore lint/suspicious/noExplicitAny: objects of the API are looked into, not modelled.
  [field: string]: any;
}

/** The API server's answer to a request that it refused. */
class ApiError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
  }
}

/** Requests to one API server. Paths are as in the API's documentation, beginning with /api or /apis. */
export interface Api {
  get(path: string): Promise<ApiObject>;
  list(path: string): Promise<ApiObject[]>;
  create(path: string, body: object): Promise<ApiObject>;
  patch(path: string, body: object, type?: 'merge' | 'strategic-merge'): Promise<ApiObject>;
  delete(path: string, body?: object): Promise<void>;
  /** The text behind a path such as /readyz. */
  text(path: string): Promise<string>;
  close(): void;
}

/** Connects to a lab's API server as administrator. Nothing is sent yet. */
export function connectApi(record: LabRecord): Api {
  const lab = record.name;
  const agent = new Agent({
    keepAlive: true,
    maxSockets: 16,
    ca: readFileSync(credentialFiles.authority(lab)),
    cert: readFileSync(credentialFiles.certificate(lab, 'admin')),
    key: readFileSync(credentialFiles.key(lab, 'admin')),
  });
  const send = (method: string, path: string, body?: object, contentType = 'application/json') =>
    new Promise<string>((resolve, reject) => {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      const headers = {
        accept: 'application/json',
        ...(payload === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(payload) }),
      };
      const options = { agent, host: '127.0.0.1', port: record.port, method, path, headers, timeout: 30_000 };
      const sent = request(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const status = response.statusCode ?? 0;
          if (status >= 200 && status < 300) resolve(text);
          else reject(new ApiError(status, `${method} ${path}: ${status} ${messageOf(text)}`));
        });
      });
      sent.on('timeout', () => sent.destroy(new WeirError('LAB_TIMEOUT', `${method} ${path}: no answer in 30 s`)));
      sent.on('error', reject);
      sent.end(payload);
    });
  const object = async (...args: Parameters<typeof send>) => JSON.parse(await send(...args)) as ApiObject;
  return {
    get: (path) => object('GET', path),
    list: async (path) => ((await object('GET', path)).items ?? []) as ApiObject[],
    create: (path, body) => object('POST', path, body),
    patch: (path, body, type = 'merge') => object('PATCH', path, body, `application/${type}-patch+json`),
    delete: async (path, body) => {
      await send('DELETE', path, body).catch((error) => {
        if (!isNotFound(error)) throw error;
      });
    },
    text: (path) => send('GET', path),
    close: () => agent.destroy(),
  };
}

function messageOf(text: string): string {
  try {
    return String((JSON.parse(text) as { message?: unknown }).message ?? text);
  } catch {
    return text.trim();
  }
}

/** True when the API server said that there is no such object. */
function isNotFound(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** Creates an object; one that is there already is left as it is. */
export async function ensure(api: Api, path: string, body: object): Promise<void> {
  await api.create(path, body).catch((error) => {
    if (!(error instanceof ApiError && error.status === 409)) throw error;
  });
}
