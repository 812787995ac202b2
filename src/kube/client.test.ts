import assert from 'node:assert/strict';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createKubeClient } from './client.ts';

test('createKubeClient ends a stream, with the reason, when the server stops answering', async () => {
  let answering = true;
  let asked = 0;
  const server = http.createServer((request, response) => {
    if (request.url === '/livez') asked++;
    if (request.url === '/livez' && answering) response.end('ok');
    // The stream begins and stays silent, as a watch does when nothing happens.
    if (request.url === '/stream') response.writeHead(200).flushHeaders();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const client = createKubeClient({ server: `http://127.0.0.1:${port}` }, { heartbeatMs: 20 });
  try {
    const stream = await client.stream('/stream');
    const ended = new Promise<Error>((resolve) => stream.once('error', resolve));
    while (asked < 3) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(stream.destroyed, false);
    answering = false;
    assert.match((await ended).message, /no answer from http:.* within 20 ms/);
  } finally {
    client.close();
    server.closeAllConnections();
    server.close();
  }
});
