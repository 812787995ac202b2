import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { type GetFlowsRequest, GetFlowsRequestSchema, Observer } from '../../../../proto/gen/observer/observer_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { createFlowEncoder } from '../../../observe/flows/encode-flow.ts';
import { addresses, createScene, makeEvent } from '../../../observe/flows/testdata/scene.ts';
import { frame } from '../../../observe/rpc/message-frames.ts';
import { type RpcCall, type RpcService, rpcService } from '../../../observe/rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../../../observe/rpc/rpc-status.ts';
import { serveRpc } from '../../../observe/rpc/serve-rpc.ts';
import { makeTestCertificates } from '../../../observe/rpc/testdata/certificates.ts';
import { watchTlsFiles } from '../../../observe/rpc/tls-files.ts';
import { flowServerTarget } from '../flow-server.ts';
import type { Target } from '../targets.ts';
import { followNode, readLimits, readNode } from './node-stream.ts';

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-stream-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A server of flows whose answers are `answer`'s. */
function observer(answer: (request: GetFlowsRequest, call: RpcCall) => AsyncIterable<Uint8Array>): RpcService {
  const none = { unary: () => Promise.reject(new RpcError(RpcCode.unimplemented, 'not here')) };
  return rpcService(Observer, {
    getFlows: { stream: answer },
    getAgentEvents: none,
    getDebugEvents: none,
    getNodes: none,
    getNamespaces: none,
    serverStatus: none,
  });
}

const scene = createScene();
scene.record(makeEvent({ from: addresses.far, to: addresses.db, timeNs: 5_000_000_123n }));
const encoded = createFlowEncoder(scene.context).response(scene.ring.get(0));
const timeNs = BigInt(Date.UTC(2026, 0, 1)) * 1_000_000n + 5_000_000_123n;

async function serve(t: TestContext, service: RpcService): Promise<Target> {
  const hubbleSocket = join(scratch(t), 'hubble.sock');
  const server = await serveRpc({ address: `unix:${hubbleSocket}`, services: [service] });
  t.after(() => server.close());
  return { node: 'node1', socket: '', hubbleSocket };
}

const request = create(GetFlowsRequestSchema, {});

test('readNode() gives all flows, in their order, with their times', async (t) => {
  const count = 30_000;
  const target = await serve(
    t,
    observer(async function* () {
      for (let i = 0; i < count; i++) yield encoded;
    }),
  );
  let got = 0;
  for await (const item of readNode(target, request)) {
    if (got++ > 0) continue;
    assert.equal(item.timeNs, timeNs);
    assert.equal(item.response.nodeName, 'node1');
    assert.deepEqual([...item.bytes!], [...encoded]);
  }
  assert.equal(got, count);
});

test('readNode() says in its own words what a node refuses, and that one is not there', async (t) => {
  const refusing = (code: number) =>
    serve(
      t,
      observer(() => {
        throw new RpcError(code, 'so it is');
      }),
    );
  const read = async (target: Target) => {
    for await (const _ of readNode(target, request));
  };
  for (const [code, expected] of [
    [RpcCode.invalidArgument, 'CONFIG_INVALID'],
    [RpcCode.permissionDenied, 'ACCESS_REFUSED'],
    [RpcCode.internal, 'AGENT_UNREACHABLE'],
  ] as const)
    await assert.rejects(
      read(await refusing(code)),
      (error: WeirError) => error instanceof WeirError && error.code === expected && /so it is/.test(error.message),
    );
  await assert.rejects(read({ node: 'n', socket: '', hubbleSocket: '/nowhere/hubble.sock' }), {
    code: 'AGENT_UNREACHABLE',
  });
});

test('readLimits() gives many nodes together no more than a few', () => {
  assert.deepEqual(readLimits(1), { windowBytes: 4 << 20, queueBytes: 1 << 20 });
  assert.deepEqual(readLimits(1024), { windowBytes: 128 << 10, queueBytes: 128 << 10 });
});

for (const nodes of [1, 256])
  test(`a reader that stops ends the call, and one that is slow holds it back: one of ${nodes}`, async (t) => {
    const { windowBytes, queueBytes } = readLimits(nodes);
    // What is on its way between window and queue, and what the server has ready.
    const betweenBytes = 512 << 10;
    const frameBytes = frame(encoded).length;
    let givenBytes = 0;
    const gone = Promise.withResolvers<void>();
    const target = await serve(
      t,
      observer(async function* (_, { signal }) {
        signal.addEventListener('abort', () => gone.resolve());
        for (; !signal.aborted && givenBytes < 64 << 20; givenBytes += frameBytes) yield encoded;
      }),
    );
    for await (const _ of readNode(target, request, nodes)) {
      // The server is held when the window is full and it makes no more, however often it could.
      for (let before = -1; givenBytes < windowBytes || before !== givenBytes; ) {
        before = givenBytes;
        for (let turn = 0; turn < 1_000; turn++) await setImmediate();
      }
      break;
    }
    await gone.promise;
    assert.ok(givenBytes < windowBytes + queueBytes + betweenBytes, `${givenBytes} bytes were made for who reads one`);
  });

test('followNode() goes on after the last flow that was shown when the node is back', async (t) => {
  const asked: GetFlowsRequest[] = [];
  const target = await serve(
    t,
    observer(async function* (each, { signal }) {
      asked.push(each);
      yield encoded;
      if (asked.length === 1) throw new RpcError(RpcCode.unavailable, 'it ends');
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    }),
  );
  const said: string[] = [];
  let got = 0;
  for await (const piece of followNode(target, request, (_, state) => said.push(state))) {
    for (const _ of piece) got++;
    if (got === 2) break;
  }
  assert.deepEqual(said, ['away', 'back']);
  const { seconds, nanos } = asked[1]!.since!;
  assert.equal(seconds * 1_000_000_000n + BigInt(nanos), (timeNs / 1_000n + 1n) * 1_000n);
});

test('a server on the network is held against its name or address, and told who asks', async (t) => {
  const folder = scratch(t);
  const { file } = await makeTestCertificates(folder);
  const files = watchTlsFiles({ certFile: file('server.crt'), keyFile: file('server.key'), caFile: file('ca.crt') });
  t.after(() => files.close());
  const tokens: (string | undefined)[] = [];
  const service = observer(async function* (_, { authorization }) {
    tokens.push(authorization);
    yield encoded;
  });
  const server = await serveRpc({ address: '127.0.0.1:0', services: [service], tls: { files, clients: 'asked' } });
  t.after(() => server.close());
  writeFileSync(file('token'), 'secret\n');
  const port = server.address.split(':')[1];
  const read = async (host: string, flags: object) => {
    const target = flowServerTarget({ server: `${host}:${port}`, tlsCaCertFiles: [file('ca.crt')], ...flags });
    let got = 0;
    for await (const _ of readNode({ node: host, socket: host, hubbleSocket: '', server: target }, request)) got++;
    return got;
  };
  assert.equal(await read('127.0.0.1', { tokenFile: file('token') }), 1);
  assert.equal(await read('127.0.0.1', { tlsServerName: 'localhost' }), 1);
  assert.equal(
    await read('127.0.0.1', { tlsClientCertFile: file('client.crt'), tlsClientKeyFile: file('client.key') }),
    1,
  );
  assert.equal(await read('127.0.0.1', { tlsCaCertFiles: [file('other.crt')], tlsAllowInsecure: true }), 1);
  assert.deepEqual(tokens, ['Bearer secret', undefined, undefined, undefined]);
  const unreachable = (message: RegExp) => ({ code: 'AGENT_UNREACHABLE', message });
  const began = performance.now();
  await assert.rejects(read('127.0.0.1', { tlsCaCertFiles: [file('other.crt')] }), unreachable(/certificate/));
  await assert.rejects(read('127.0.0.1', { tlsServerName: 'elsewhere' }), unreachable(/elsewhere/));
  assert.ok(performance.now() - began < 3_000, 'wrong papers are not shown again and again');
  await assert.rejects(read('127.0.0.1', { tokenFile: file('none') }), { code: 'CONFIG_INVALID' });
});
