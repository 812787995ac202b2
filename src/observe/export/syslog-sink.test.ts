import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { syslogMessage } from './syslog-message.ts';
import { createSyslogSink } from './syslog-sink.ts';
import { events, until } from './testdata/receivers.ts';

const never = new AbortController().signal;

/** Reads frames with counted octets. */
function readFrames(bytes: Buffer): string[] {
  const frames: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(' ', at);
    const length = Number(bytes.toString('latin1', at, space));
    frames.push(bytes.toString('utf8', space + 1, space + 1 + length));
    at = space + 1 + length;
  }
  return frames;
}

async function tcpReceiver(t: TestContext) {
  const sockets: Socket[] = [];
  const received: Buffer[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('data', (part) => received.push(Buffer.from(part))).on('error', () => {});
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { address, sockets, frames: () => readFrames(Buffer.concat(received)) };
}

test('over TCP each message is counted in octets, not characters', async (t) => {
  const { address, frames } = await tcpReceiver(t);
  const sink = createSyslogSink({ address });
  t.after(() => sink.close());
  const batch = events(3).with(1, { ...events(1)[0]!, body: 'grün 流' });
  await sink.send(batch, never);
  await until('all are there', () => frames().length === 3);
  assert.deepEqual(
    frames(),
    batch.map((each) => each.body),
  );
});

test('what was written last is written again to the next connection', async (t) => {
  const { address, sockets, frames } = await tcpReceiver(t);
  const sink = createSyslogSink({ address });
  t.after(() => sink.close());
  await sink.send(events(1), never);
  await until('it is there', () => frames().length === 1);
  sockets[0]!.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await sink.send(events(1, 2), never);
  await until('both are there', () => frames().length === 3);
  assert.deepEqual(frames(), ['{"n":1}', '{"n":1}', '{"n":2}']);
});

test('a receiver that does not read, and one that is not there, are errors', async (t) => {
  const { address, sockets } = await tcpReceiver(t);
  const sink = createSyslogSink({ address });
  t.after(() => sink.close());
  await sink.send(events(1), never);
  await until('it is connected', () => sockets.length === 1);
  sockets[0]!.pause();
  const large = events(1).map((each) => ({ ...each, body: 'x'.repeat(16 << 20) }));
  await assert.rejects(sink.send(large, AbortSignal.timeout(100)));
  await assert.rejects(createSyslogSink({ address: 'tcp://127.0.0.1:1' }).send(events(1), never), /ECONNREFUSED/);
});

test('over UDP each message is a packet; one that fits in none is refused', async (t) => {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  const received: string[] = [];
  socket.on('message', (message) => received.push(message.toString()));
  const sink = createSyslogSink({ address: `udp://127.0.0.1:${socket.address().port}` });
  t.after(() => sink.close());
  const batch = [...events(2), { ...events(1)[0]!, body: 'x'.repeat(70_000) }];
  assert.equal((await sink.send(batch, never)).refused, 1);
  await until('both are there', () => received.length === 2);
  assert.deepEqual(received, ['{"n":1}', '{"n":2}']);
});

test('a connection that lasts keeps nothing of what was sent', async (t) => {
  const { address, frames } = await tcpReceiver(t);
  const sink = createSyslogSink({ address });
  t.after(() => sink.close());
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  t.after(() => process.off('warning', onWarning));
  for (let i = 0; i < 20; i++) await sink.send(events(1, i), never);
  await until('all are there', () => frames().length === 20);
  assert.deepEqual(warnings, []);
});

test('syslogMessage() is what RFC 5424 says, whatever names say', () => {
  const given = {
    facility: 16,
    timeMs: 0,
    host: 'node1',
    kind: 'flow',
    warning: true,
    dataId: 'weir@32473',
    text: '{}',
  };
  assert.equal(
    syslogMessage({ ...given, data: { verdict: 'DROPPED', none: undefined } }),
    '<132>1 1970-01-01T00:00:00.000Z node1 weir - flow [weir@32473 verdict="DROPPED"] {}',
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (host, value) => {
      const message = syslogMessage({ ...given, host, data: { value } });
      const match = /^<132>1 \S+ [!-~]{1,255} weir - flow \[weir@32473 value="((?:[^"\\\]]|\\["\\\]])*)"\] \{\}$/s.exec(
        message,
      );
      assert.ok(match, message);
      assert.equal(match[1]!.replace(/\\(["\\\]])/g, '$1'), value.replaceAll('\n', ' '));
    }),
    { numRuns: 300 },
  );
});
