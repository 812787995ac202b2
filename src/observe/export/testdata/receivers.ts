// Servers for tests of exporters: they keep what they were sent, and answer as they are told.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { QueuedEvent } from '../queue-record.ts';

/** A request as a server saw it. */
export interface Received {
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

/** Starts a server that `answer` speaks for. */
export async function httpReceiver(
  t: TestContext,
  answer: (request: Received, response: ServerResponse) => void,
): Promise<{ url: string; requests: Received[] }> {
  const requests: Received[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const bytes = Buffer.concat(parts);
      const text = (request.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString('utf8');
      const received = { path: request.url ?? '', headers: request.headers, text };
      requests.push(received);
      answer(received, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

/** Events with the numbers `from` to `from + count - 1`. */
export function events(count: number, from = 1): QueuedEvent[] {
  return Array.from({ length: count }, (_, i) => ({
    seq: from + i,
    timeMs: Date.UTC(2026, 0, 1) + i,
    id: `id-${from + i}`,
    key: 'k',
    kind: 'flow',
    body: `{"n":${from + i}}`,
  }));
}

/** Waits until it is so. */
export async function until(what: string, holds: () => boolean, timeoutMs = 10_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`after ${timeoutMs} ms still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
