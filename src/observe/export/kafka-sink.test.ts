// What a broker does is tried on a broker (test/exporters); here is what is said when there is none behind the address.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { makeTestCertificates } from '../rpc/testdata/certificates.ts';
import { type ConfigOf, parseExportConfig } from './export-config.ts';
import { createKafkaSink } from './kafka-sink.ts';
import { events } from './testdata/receivers.ts';

const never = new AbortController().signal;

function sinkFor(t: TestContext, broker: string, rest = '') {
  const context = { nodeName: 'node1', version: 'weir v0', run: '0123456789abcdef' };
  const yaml = `exporters: [{name: k, type: kafka, brokers: ["${broker}"], topic: x, timeoutSeconds: 1${rest}}]`;
  const sink = createKafkaSink(parseExportConfig(yaml, 'test', context)[0] as ConfigOf<'kafka'>);
  t.after(() => sink.close());
  return sink;
}

/** A server of TLS that never says anything; the names that it was called by. */
async function tlsListener(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-kafka-sink-'));
  const { file, read } = await makeTestCertificates(folder);
  const names: unknown[] = [];
  const sockets: TLSSocket[] = [];
  const server = createTlsServer({ cert: read('server.crt'), key: read('server.key') }, (socket) => {
    names.push(socket.servername);
    sockets.push(socket.on('error', () => {}));
  }).listen(0, '127.0.0.1');
  server.on('tlsClientError', () => {});
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { port: (server.address() as AddressInfo).port, file, names };
}

test('why a broker cannot be reached is said at once, not after the time that it is given', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  await assert.rejects(sinkFor(t, `127.0.0.1:${port}`).send(events(1), never), /ECONNREFUSED/);
});

test('a certificate of an authority that is not trusted is told with the setting that mends it', async (t) => {
  const { port, file } = await tlsListener(t);
  const sink = sinkFor(t, `localhost:${port}`, `, tls: {ca: "${file('other.crt')}"}`);
  await assert.rejects(sink.send(events(1), never), /give its authority as tls\.ca \(UNABLE_TO_VERIFY/);
});

test('a broker that says nothing costs the time that it is given', async (t) => {
  const { port, file } = await tlsListener(t);
  const sink = sinkFor(t, `localhost:${port}`, `, tls: {ca: "${file('ca.crt')}"}`);
  await assert.rejects(sink.send(events(1), never), /no answer|timed out/);
});

test('the handshake has the broker’s name, or the one that is given, and none for an address', async (t) => {
  const { port, file, names } = await tlsListener(t);
  for (const [broker, more] of [
    ['localhost', ''],
    ['127.0.0.1', ''],
    ['127.0.0.1', ', serverName: localhost'],
  ])
    await assert.rejects(
      sinkFor(t, `${broker}:${port}`, `, tls: {ca: "${file('ca.crt')}"${more}}`).send(events(1), never),
    );
  assert.deepEqual(names, ['localhost', false, 'localhost']);
});
