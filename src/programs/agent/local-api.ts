// The agent's socket: JSON over HTTP for the command line, and the CNI plugin's requests. Root only.
import { chmodSync } from 'node:fs';
import * as http from 'node:http';
import {
  CniError,
  type CniRequest,
  type CniResult,
  formatCniError,
  parseCniRequest,
} from '../../connect/endpoints/cni-protocol.ts';
import { errorText, WeirError } from '../../core/errors.ts';
import { removeOldSocket } from '../../kernel/unix-socket.ts';
import type { Log } from '../log.ts';

/** Answers a GET; `undefined` is "not found". */
export type ApiHandler = (query: URLSearchParams, rest: string) => unknown | Promise<unknown>;

/** Serves until closed. */
export interface LocalApi {
  close(): Promise<void>;
}

const maxBodyBytes = 1 << 20;
/** Clients are on this machine: one that takes longer to say what it wants hangs, and gives its place to others. */
const requestTimeoutMs = 5_000;
const maxConnections = 512;

/** Listens on `path`. `routes` are GET handlers by path; one that ends in "/" also gets what follows. */
export async function serveLocalApi(options: {
  readonly path: string;
  readonly routes: Readonly<Record<string, ApiHandler>>;
  /** POST handlers by path; their arguments are in the query. */
  readonly actions?: Readonly<Record<string, ApiHandler>>;
  readonly cni: (request: CniRequest) => Promise<CniResult | undefined>;
  readonly log: Log;
  /** How long a client may take to send its request. */
  readonly requestTimeoutMs?: number;
}): Promise<LocalApi> {
  const { path, routes, log } = options;
  const timeouts = {
    headersTimeout: options.requestTimeoutMs ?? requestTimeoutMs,
    requestTimeout: options.requestTimeoutMs ?? requestTimeoutMs,
    connectionsCheckingInterval: (options.requestTimeoutMs ?? requestTimeoutMs) / 5,
  };
  const server = http.createServer(timeouts, (request, response) => {
    handle(request, response).catch((error) => {
      // What a client got wrong is its own business.
      if (error instanceof URIError || (error instanceof WeirError && error.code === 'CONFIG_INVALID'))
        return answer(response, 400, { error: errorText(error) });
      log.error('a request failed', { url: request.url, error: errorText(error) });
      if (!response.headersSent) answer(response, 500, { error: errorText(error) });
      else response.destroy();
    });
  });

  async function handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = URL.parse(request.url ?? '/', 'http://agent');
    if (url === null) return answer(response, 400, { error: 'the path cannot be read' });
    if (request.method === 'POST' && url.pathname === '/cni') return handleCni(request, response);
    const action = request.method === 'POST' ? options.actions?.[url.pathname] : undefined;
    if (action !== undefined) return answer(response, 200, await action(url.searchParams, ''));
    if (request.method !== 'GET')
      return answer(response, 405, { error: `${request.method} is not for ${url.pathname}` });
    const exact = routes[url.pathname];
    const prefix = Object.keys(routes).find((each) => each.endsWith('/') && url.pathname.startsWith(each));
    const handler = exact ?? (prefix === undefined ? undefined : routes[prefix]);
    if (handler === undefined) return answer(response, 404, { error: `nothing is at ${url.pathname}` });
    const rest =
      exact !== undefined || prefix === undefined ? '' : decodeURIComponent(url.pathname.slice(prefix.length));
    const value = await handler(url.searchParams, rest);
    if (value === undefined) answer(response, 404, { error: `nothing is at ${url.pathname}` });
    else answer(response, 200, value);
  }

  async function handleCni(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    let version = '1.1.0';
    const started = performance.now();
    const header = (name: string) => request.headers[name] as string | undefined;
    try {
      const body = await readBody(request);
      const parsed = parseCniRequest(
        {
          command: header('x-cni_command') ?? '',
          containerId: header('x-cni_containerid'),
          netns: header('x-cni_netns'),
          ifname: header('x-cni_ifname'),
          args: header('x-cni_args'),
        },
        body,
      );
      version = parsed.config.cniVersion;
      const result = await options.cni(parsed);
      log.debug('cni', {
        command: parsed.command,
        container: parsed.containerId,
        ms: Math.round((performance.now() - started) * 10) / 10,
      });
      answer(response, 200, result);
    } catch (error) {
      const failure = formatCniError(version, error);
      log.warn('a CNI request failed', {
        command: header('x-cni_command'),
        container: header('x-cni_containerid'),
        ...failure,
      });
      if (!(error instanceof CniError)) log.debug('where it failed', { stack: (error as Error).stack });
      answer(response, 500, failure);
    }
  }

  server.maxConnections = maxConnections;
  removeOldSocket(path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve());
  });
  chmodSync(path, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(response: http.ServerResponse, status: number, value: unknown): void {
  const body =
    value === undefined
      ? ''
      : `${JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? Number(each) : each))}\n`;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

async function readBody(request: http.IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > maxBodyBytes) throw new CniError(6, 'the request is too large', `${maxBodyBytes} bytes are the most`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}
