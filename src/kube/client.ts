// A client of the Kubernetes API: JSON over HTTPS with kept-alive connections. No generated models: what Weir reads
// it checks itself, and an agent on every node has to stay small.
import * as http from 'node:http';
import * as https from 'node:https';
import type { ClusterAccess } from './kubeconfig.ts';
import { type KubeObject, type Resource, resourcePath } from './resource.ts';

/** The API server answered with an error; `status` is HTTP's, `reason` Kubernetes' word (NotFound, Conflict, Expired …). */
class KubeApiError extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.name = 'KubeApiError';
    this.status = status;
    this.reason = reason;
  }
}

/** True for an API error with this HTTP status. */
export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof KubeApiError && error.status === status;
}

/** A list as the API returns it. */
export interface KubeList<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: T[];
}

/** Options of a single request. */
export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  /** The answer holds the metadata of objects only. */
  readonly metadataOnly?: 'list';
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** A connection to one API server. */
export interface KubeClient {
  readonly server: string;
  request<T>(method: string, path: string, options?: RequestOptions): Promise<T>;
  /** Sends a request whose answer is read as it comes. */
  stream(path: string, options?: RequestOptions): Promise<http.IncomingMessage>;
  list<T>(
    resource: Resource,
    options?: { namespace?: string; query?: RequestOptions['query']; signal?: AbortSignal },
  ): Promise<KubeList<T>>;
  get<T>(resource: Resource, name: string, namespace?: string): Promise<T>;
  create<T extends KubeObject>(resource: Resource, object: T): Promise<T>;
  replace<T extends KubeObject>(resource: Resource, object: T): Promise<T>;
  /** Server-side apply under the field manager `weir`. */
  apply<T extends KubeObject>(resource: Resource, object: T): Promise<T>;
  delete(resource: Resource, name: string, namespace?: string): Promise<void>;
  /** Deletes an object only as it was read: another version, or another object of that name, is a conflict (409). */
  deleteExactly(resource: Resource, object: KubeObject): Promise<void>;
  close(): void;
}

const requestTimeoutMs = 30_000;
/** Servers that cannot answer with metadata alone answer with whole objects. */
const metadataOfList = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json;q=0.9';
/** While something is followed the server is asked for a sign of life this often: a watch is silent when nothing happens,
 * and just as silent when the network or the server is gone. */
const heartbeatMs = 5_000;

/** Makes a client. Nothing is sent before the first request. */
export function createKubeClient(access: ClusterAccess, options: { heartbeatMs?: number } = {}): KubeClient {
  const secure = access.server.startsWith('https:');
  const agent = secure
    ? new https.Agent({
        keepAlive: true,
        ca: access.ca,
        cert: access.cert,
        key: access.key,
        rejectUnauthorized: !access.insecure,
        servername: access.serverName,
      })
    : new http.Agent({ keepAlive: true });

  function send(
    method: string,
    path: string,
    options: RequestOptions,
    timeoutMs: number,
  ): Promise<http.IncomingMessage> {
    const url = new URL(access.server + path);
    for (const [name, value] of Object.entries(options.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const body = options.body === undefined ? undefined : Buffer.from(JSON.stringify(options.body));
    const headers: http.OutgoingHttpHeaders = {
      accept: options.metadataOnly === 'list' ? metadataOfList : 'application/json',
      'user-agent': 'weir',
    };
    const token = access.token?.();
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    else if (access.basicAuth !== undefined)
      headers.authorization = `Basic ${Buffer.from(access.basicAuth).toString('base64')}`;
    if (body !== undefined) {
      headers['content-type'] = options.contentType ?? 'application/json';
      headers['content-length'] = body.length;
    }
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request(url, { method, agent, headers, signal: options.signal });
      // Only until the answer begins: a watch is silent for as long as nothing happens.
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer from ${access.server} within ${timeoutMs} ms`)),
        timeoutMs,
      );
      request.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      request.once('response', (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      request.end(body);
    });
  }

  async function failure(response: http.IncomingMessage): Promise<KubeApiError> {
    const text = await readText(response);
    let status: { reason?: string; message?: string } = {};
    try {
      status = JSON.parse(text);
    } catch {
      status = { message: text.slice(0, 200) };
    }
    return new KubeApiError(
      response.statusCode ?? 0,
      status.reason ?? '',
      status.message ?? `HTTP ${response.statusCode}`,
    );
  }

  const streams = new Set<http.IncomingMessage>();
  let heartbeat: NodeJS.Timeout | undefined;
  let asking = false;

  function watchOver(stream: http.IncomingMessage): void {
    streams.add(stream);
    stream.once('close', () => {
      streams.delete(stream);
      if (streams.size > 0) return;
      clearInterval(heartbeat);
      heartbeat = undefined;
    });
    heartbeat ??= setInterval(askForLife, options.heartbeatMs ?? heartbeatMs).unref();
  }

  function askForLife(): void {
    if (asking) return;
    asking = true;
    send('GET', '/livez', {}, options.heartbeatMs ?? heartbeatMs)
      // Any answer will do: a server that is unwell still answers.
      .then((response) => response.resume())
      .catch((error: Error) => {
        for (const stream of streams) stream.destroy(error);
      })
      .finally(() => {
        asking = false;
      });
  }

  const client: KubeClient = {
    server: access.server,
    async request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
      const response = await send(method, path, options, options.timeoutMs ?? requestTimeoutMs);
      if ((response.statusCode ?? 500) >= 300) throw await failure(response);
      return JSON.parse(await readText(response)) as T;
    },
    async stream(path, options = {}) {
      const response = await send('GET', path, options, options.timeoutMs ?? requestTimeoutMs);
      if ((response.statusCode ?? 500) >= 300) throw await failure(response);
      watchOver(response);
      return response;
    },
    list: (resource, options = {}) =>
      client.request('GET', resourcePath(resource, options.namespace), {
        query: options.query,
        signal: options.signal,
      }),
    get: (resource, name, namespace) => client.request('GET', resourcePath(resource, namespace, name)),
    create: (resource, object) =>
      client.request('POST', resourcePath(resource, object.metadata.namespace), { body: object }),
    replace: (resource, object) =>
      client.request('PUT', resourcePath(resource, object.metadata.namespace, object.metadata.name), { body: object }),
    apply: (resource, object) =>
      client.request('PATCH', resourcePath(resource, object.metadata.namespace, object.metadata.name), {
        body: object,
        query: { fieldManager: 'weir', force: true },
        contentType: 'application/apply-patch+yaml',
      }),
    async delete(resource, name, namespace) {
      await client.request('DELETE', resourcePath(resource, namespace, name));
    },
    async deleteExactly(resource, { metadata }) {
      const { uid, resourceVersion } = metadata;
      await client.request('DELETE', resourcePath(resource, metadata.namespace, metadata.name), {
        body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid, resourceVersion } },
      });
    },
    close: () => agent.destroy(),
  };
  return client;
}

async function readText(response: http.IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}
