// The server as clients of other making see it, and as those do who send it rubbish, never read, or show wrong papers.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as http2 from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import { Health, HealthCheckRequestSchema, type HealthCheckResponse } from '../../../proto/gen/health/health_pb.js';
import { ServerReflection, type ServerReflectionResponse } from '../../../proto/gen/reflection/v1_pb.js';
import { ServerReflection as V1Alpha } from '../../../proto/gen/reflection/v1alpha_pb.js';
import { healthService } from './health-service.ts';
import { frame } from './message-frames.ts';
import { reflectionServices } from './reflection-service.ts';
import { connectRpc } from './rpc-connection.ts';
import { type MessageHandler, rpcService } from './rpc-service.ts';
import { RpcError } from './rpc-status.ts';
import { type RpcLimits, type RpcTls, serveRpc } from './serve-rpc.ts';
import { makeTestCertificates } from './testdata/certificates.ts';
import { callUnary, serviceClient } from './testdata/grpc-client.ts';
import { watchTlsFiles } from './tls-files.ts';

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-rpc-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A server with Health whose Watch is what the test says. */
async function serve(
  t: TestContext,
  options: { watch?: MessageHandler; tls?: RpcTls; limits?: Partial<RpcLimits>; address?: string } = {},
) {
  const health = healthService([]);
  const service =
    options.watch === undefined
      ? health
      : rpcService(Health, {
          check: { unary: () => create(Health.method.check.output, { status: 1 }) },
          list: { unary: () => create(Health.method.list.output) },
          watch: options.watch,
        });
  const services = [service, ...reflectionServices([service])];
  const server = await serveRpc({
    address: options.address ?? '127.0.0.1:0',
    services,
    tls: options.tls,
    limits: options.limits,
  });
  t.after(() => server.close());
  return server;
}

function client(t: TestContext, address: string, credentials?: grpc.ChannelCredentials, service = Health as never) {
  const made = serviceClient(
    service,
    address.startsWith('unix:') ? address : `dns:${address}`,
    {
      'grpc.use_local_subchannel_pool': 1,
      ...(credentials === undefined ? {} : { 'grpc.ssl_target_name_override': 'localhost' }),
    },
    credentials,
  );
  t.after(() => made.close());
  return made;
}
const check = (of: ReturnType<typeof client>) =>
  callUnary(of, Health.method.check, {}, 3_000) as unknown as Promise<HealthCheckResponse>;

test('serveRpc() answers health: Check, List, Watch, and knows which services there are', async (t) => {
  const server = await serve(t);
  const health = client(t, server.address);
  assert.equal((await check(health)).status, 1);
  await assert.rejects(
    callUnary(health, Health.method.check, { service: 'other' }),
    (error: grpc.ServiceError) => error.code === grpc.status.NOT_FOUND && /other/.test(error.details),
  );
  const { statuses } = (await callUnary(health, Health.method.list, {})) as unknown as { statuses: object };
  assert.deepEqual(Object.keys(statuses), ['', 'grpc.health.v1.Health']);
  const call = health.watch!(create(HealthCheckRequestSchema)) as grpc.ClientReadableStream<HealthCheckResponse>;
  call.on('error', () => {});
  const [first] = (await once(call, 'data')) as [HealthCheckResponse];
  assert.equal(first.status, 1);
  call.cancel();
});

test('serveRpc() tells its contracts by reflection, in both versions', async (t) => {
  const server = await serve(t);
  for (const service of [ServerReflection, V1Alpha]) {
    const call = client(t, server.address, undefined, service as never)
      .serverReflectionInfo!() as grpc.ClientDuplexStream<unknown, ServerReflectionResponse>;
    const ask = async (messageRequest: object) => {
      call.write(create(service.method.serverReflectionInfo.input, { messageRequest } as never));
      return ((await once(call, 'data')) as [ServerReflectionResponse])[0].messageResponse;
    };
    const services = await ask({ case: 'listServices', value: '' });
    assert.ok(services.case === 'listServicesResponse');
    assert.ok(services.value.service.some(({ name }) => name === 'grpc.health.v1.Health'));
    const files = await ask({ case: 'fileContainingSymbol', value: 'grpc.health.v1.Health.Check' });
    assert.ok(files.case === 'fileDescriptorResponse');
    assert.deepEqual(
      files.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name),
      ['health/health.proto'],
    );
    const unknown = await ask({ case: 'fileByFilename', value: 'no.proto' });
    assert.ok(unknown.case === 'errorResponse' && unknown.value.errorCode === 5);
    call.end();
    call.resume();
    await once(call, 'end');
  }
});

test('serveRpc() passes errors with their text, and keeps to the time that the caller gave', async (t) => {
  const server = await serve(t, {
    watch: {
      async *stream({ service }: { service: string }, { signal }) {
        if (service === 'fails') throw new RpcError(7, 'not “you”, 100%');
        yield create(Health.method.watch.output, { status: 1 });
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
    },
  });
  const health = client(t, server.address);
  const end = (call: grpc.ClientReadableStream<unknown>) =>
    new Promise<grpc.ServiceError>((resolve) => call.on('data', () => {}).on('error', resolve));
  const failed = await end(health.watch!(create(HealthCheckRequestSchema, { service: 'fails' })) as never);
  assert.deepEqual([failed.code, failed.details], [7, 'not “you”, 100%']);
  const late = await end(health.watch!(create(HealthCheckRequestSchema), { deadline: Date.now() + 200 }) as never);
  assert.equal(late.code, grpc.status.DEADLINE_EXCEEDED);
  const nowhere = new grpc.Client(server.address, grpc.credentials.createInsecure());
  t.after(() => nowhere.close());
  const pass = (bytes: Buffer) => bytes;
  const code = await new Promise((resolve) =>
    nowhere.makeUnaryRequest('/no.Such/Method', pass, pass, Buffer.alloc(0), (error) => resolve(error?.code)),
  );
  assert.equal(code, grpc.status.UNIMPLEMENTED);
});

test('serveRpc() outlives bytes that are no HTTP/2, and calls that are no gRPC', async (t) => {
  const server = await serve(t);
  const [host, port] = server.address.split(':') as [string, string];
  for (const rubbish of [
    'GET / HTTP/1.1\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff',
    '\0'.repeat(5000),
  ]) {
    const socket = connect(Number(port), host);
    socket.on('error', () => {});
    socket.end(Buffer.from(rubbish, 'latin1'));
    socket.resume();
    await once(socket, 'close');
  }
  const session = http2.connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const call = async (headers: http2.OutgoingHttpHeaders, body: Buffer) => {
    const stream = session.request({
      ':method': 'POST',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    let status: unknown;
    const take = (got: http2.IncomingHttpHeaders) => {
      status = got['grpc-status'] ?? status ?? (Number(got[':status']) === 200 ? undefined : got[':status']);
    };
    stream
      .on('response', take)
      .on('trailers', take)
      .on('error', () => {})
      .resume();
    stream.end(body);
    await once(stream, 'close');
    return status;
  };
  const path = '/grpc.health.v1.Health/Check';
  assert.equal(await call({ ':path': path, ':method': 'PUT' }, Buffer.alloc(0)), 415);
  assert.equal(await call({ ':path': path, 'content-type': 'text/plain' }, Buffer.alloc(0)), 415);
  assert.equal(await call({ ':path': path }, Buffer.alloc(0)), '13');
  assert.equal(await call({ ':path': path }, Buffer.from([0, 0, 0, 0, 9, 1])), '13');
  assert.equal(await call({ ':path': path }, Buffer.from([0, 0xff, 0xff, 0xff, 0xff])), '8');
  assert.equal(await call({ ':path': path }, Buffer.from([1, 0, 0, 0, 0])), '12');
  assert.equal(await call({ ':path': path }, frame(Buffer.from([0x0a, 0xff]))), '13');
  assert.equal(await call({ ':path': path }, frame(Buffer.alloc(0))), '0');
  assert.equal((await check(client(t, server.address))).status, 1);
});

test('serveRpc() lets in only so many connections and calls, and others when those are gone', async (t) => {
  const server = await serve(t, { limits: { connectionsPerClient: 3, calls: 2 } });
  const [host, port] = server.address.split(':') as [string, string];
  const idle = await Promise.all(
    [1, 2].map(async () => {
      const socket = connect(Number(port), host);
      socket.on('error', () => {});
      await once(socket, 'connect');
      return socket;
    }),
  );
  const health = client(t, server.address);
  assert.equal((await check(health)).status, 1);
  const refused = connect(Number(port), host);
  refused.on('error', () => {}).resume();
  await once(refused, 'close');
  for (const socket of idle) socket.destroy();

  const calls = [1, 2].map(() => health.watch!(create(HealthCheckRequestSchema)) as grpc.ClientReadableStream<unknown>);
  for (const call of calls) {
    call.on('error', () => {});
    await once(call, 'data');
  }
  await assert.rejects(check(health), (error: grpc.ServiceError) => error.code === grpc.status.RESOURCE_EXHAUSTED);
  for (const call of calls) call.cancel();
  while (server.calls > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal((await check(health)).status, 1);
});

/** Lets everything else run so often, whatever the time. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await setImmediate();
}

for (const [how, count, pause] of [
  ['at once', 100_000, () => undefined],
  ['in pieces that trickle', 5_000, () => setImmediate()],
] as const)
  test(`serveRpc() takes from a stream only what its client reads, given ${how}`, async (t) => {
    let given = 0;
    const server = await serve(t, {
      watch: {
        async *stream() {
          const message = new Uint8Array(1000);
          for (; given < count; given++) {
            await pause();
            yield message;
          }
        },
      },
    });
    const reader = await connectRpc({ address: server.address });
    t.after(() => reader.close());
    let got = 0;
    const done = Promise.withResolvers<void>();
    const stream = reader.stream(
      '/grpc.health.v1.Health/Watch',
      toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema)),
      {
        messages: (_, starts) => {
          got += starts.length;
        },
        end: () => done.resolve(),
      },
    );
    stream.pause();
    await turns(4 * 5_000);
    assert.ok(given > 0 && given < 2_000, `${given} messages were made for who reads none`);
    assert.equal((await check(client(t, server.address))).status, 1);
    stream.resume();
    await done.promise;
    assert.equal(got, count);
  });

test('serveRpc() with TLS lets in who shows a certificate of the authority, and nobody else', async (t) => {
  const folder = scratch(t);
  const { file, read } = await makeTestCertificates(folder);
  const files = watchTlsFiles(
    { certFile: file('server.crt'), keyFile: file('server.key'), caFile: file('ca.crt') },
    30,
  );
  t.after(() => files.close());
  const server = await serve(t, { tls: { files, clients: 'required' } });
  const as = (cert: string, ca = 'ca') =>
    client(t, server.address, grpc.credentials.createSsl(read(`${ca}.crt`), read(`${cert}.key`), read(`${cert}.crt`)));
  assert.equal((await check(as('client'))).status, 1);
  const unavailable = (error: grpc.ServiceError) => error.code === grpc.status.UNAVAILABLE;
  await assert.rejects(check(as('stranger')), unavailable);
  // The certificate of a server does not make a client.
  await assert.rejects(check(as('server')), unavailable);
  await assert.rejects(check(client(t, server.address, grpc.credentials.createSsl(read('ca.crt')))), unavailable);
  await assert.rejects(check(client(t, server.address)), unavailable);
  const port = Number(server.address.split(':')[1]);
  const old = connectTls({ port, host: '127.0.0.1', maxVersion: 'TLSv1.1', rejectUnauthorized: false });
  await assert.rejects(once(old, 'secureConnect'));

  await assert.rejects(
    connectRpc({ address: server.address, tls: { material: { ca: read('other.crt') }, serverName: 'localhost' } }),
    RpcError,
  );
  await assert.rejects(
    connectRpc({
      address: server.address,
      tls: {
        material: { ca: read('ca.crt'), cert: read('client.crt'), key: read('client.key') },
        serverName: 'elsewhere',
      },
    }),
    RpcError,
  );

  // Renewed files are used without a restart; half of a pair is not.
  const shown = async () => {
    const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  };
  const before = await shown();
  copyFileSync(file('renewed.crt'), file('server.crt'));
  while (files.problem === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(await shown(), before);
  copyFileSync(file('renewed.key'), file('server.key'));
  while (files.problem !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.notEqual(await shown(), before);
  assert.equal((await check(as('client'))).status, 1);
});

test('a path is listened on where an earlier run left its socket, and never where there is a file', async (t) => {
  const path = join(scratch(t), 'rpc.sock');
  writeFileSync(path, 'precious');
  await assert.rejects(serve(t, { address: `unix:${path}` }), { code: 'EADDRINUSE' });
  assert.equal(readFileSync(path, 'utf8'), 'precious');
  rmSync(path);
  await serve(t, { address: `unix:${path}` });
  const second = await serve(t, { address: `unix:${path}` });
  assert.equal((await check(client(t, second.address))).status, 1);
  await second.close();
  assert.ok(!existsSync(path));
});
