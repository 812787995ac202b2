// Metrics over HTTP, in the text format of Prometheus, or as OpenMetrics with exemplars for who asks for that.
import { createServer, type Server } from 'node:http';
import { Registry } from 'prom-client';
import { joinAddress } from '../rpc/rpc-address.ts';

/** A server of metrics. */
export interface MetricsServer {
  /** Where it listens. */
  readonly address: string;
  close(): Promise<void>;
}

const freshMs = 1_000;

/** Serves what `registry` has on `/metrics`, and that it is alive on `/healthz`. */
export async function serveMetrics(options: {
  readonly listen: { readonly host: string; readonly port: number };
  readonly registry: Registry;
  readonly onError: (error: unknown) => void;
}): Promise<MetricsServer> {
  const { listen, registry, onError } = options;
  // The registry writes in the format it is set to: one at a time.
  let turn: Promise<unknown> = Promise.resolve();
  const last = new Map<boolean, { readonly atMs: number; readonly text: Promise<{ type: string; text: string }> }>();
  /** Who asks again within a second, or while others wait, gets what they get: writing them all down takes a moment. */
  const scrape = (open: boolean) => {
    const known = last.get(open);
    const now = performance.now();
    if (known !== undefined && now - known.atMs < freshMs) return known.text;
    const text = write(open);
    last.set(open, { atMs: now, text });
    return text;
  };
  const write = (open: boolean) => {
    const text = turn.then(async () => {
      registry.setContentType(
        open ? (Registry.OPENMETRICS_CONTENT_TYPE as never) : (Registry.PROMETHEUS_CONTENT_TYPE as never),
      );
      return { type: registry.contentType, text: await registry.metrics() };
    });
    turn = text.catch(() => {});
    return text;
  };
  const server: Server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0];
    const answer = (status: number, type: string, text: string) =>
      response
        .writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) })
        .end(request.method === 'HEAD' ? '' : text);
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'text/plain', 'only GET\n');
    if (path === '/healthz') return answer(200, 'text/plain', 'ok\n');
    if (path !== '/metrics') return answer(404, 'text/plain', 'there are /metrics and /healthz\n');
    scrape(/application\/openmetrics-text/.test(request.headers.accept ?? '')).then(
      ({ type, text }) => answer(200, type, text),
      (error) => {
        onError(error);
        answer(500, 'text/plain', 'metrics could not be read\n');
      },
    );
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 10_000;
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(listen.port, listen.host, resolve);
  });
  server.on('error', onError);
  const { address, port } = server.address() as { address: string; port: number };
  return {
    address: joinAddress(address, port),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
