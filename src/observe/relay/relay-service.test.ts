// The relay over real servers of nodes, read by a client of another making.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import { GetFlowsRequestSchema, type GetFlowsResponse, Observer } from '../../../proto/gen/observer/observer_pb.js';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import { connectRpc } from '../rpc/rpc-connection.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import { serveRpc } from '../rpc/serve-rpc.ts';
import { callUnary, serviceClient } from '../rpc/testdata/grpc-client.ts';
import { createPeerPool } from './peer-pool.ts';
import { everythingViewer, type GrantListener, openAccess, type RelayAccess } from './relay-access.ts';
import { relayService } from './relay-service.ts';
import { type FakeNode, fakeNode } from './testdata/fake-node.ts';

type Request = MessageInitShape<typeof GetFlowsRequestSchema>;

async function relayOver(t: TestContext, nodes: readonly FakeNode[], access: RelayAccess = openAccess) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-relay-'));
  const late: Record<string, number> = {};
  const pool = createPeerPool({});
  const counts = { received: 0, sent: 0, late: 0, lost: 0 };
  for (const { name, address } of nodes) pool.set({ name, address });
  const service = relayService({
    pool,
    access,
    name: 'relay',
    version: 'test',
    counts,
    tailBytes: { left: 1 << 27 },
    onLate: (node, count) => {
      late[node] = (late[node] ?? 0) + count;
    },
    patience: { all: 600, backlog: 300, again: 200 },
  });
  const address = `unix:${join(folder, 'relay.sock')}`;
  const server = await serveRpc({ address, services: [service] });
  const client = serviceClient(Observer, address);
  t.after(async () => {
    client.close();
    await server.close();
    pool.close();
    rmSync(folder, { recursive: true });
  });
  const open = (request: Request) =>
    client.getFlows!(create(GetFlowsRequestSchema, request)) as grpc.ClientReadableStream<GetFlowsResponse>;
  const read = async (request: Request) => {
    const got: string[] = [];
    for await (const each of open(request) as AsyncIterable<GetFlowsResponse>) got.push(text(each));
    return got;
  };
  return { pool, client, open, read, late, address, counts };
}

function text({ responseTypes: { case: kind, value } }: GetFlowsResponse): string {
  if (kind === 'flow') return value.uuid;
  if (kind === 'lostEvents') return `lost ${value.numEventsLost}`;
  if (kind === 'nodeStatus')
    return `${NodeState[value.stateChange]!.replace('NODE_', '').toLowerCase()} ${[...value.nodeNames].sort().join(',')}`;
  return 'nothing';
}

/** Reads a stream that does not end, until `count` lines are there. */
async function lines(call: grpc.ClientReadableStream<GetFlowsResponse>) {
  const got: string[] = [];
  call.on('data', (each) => got.push(text(each)));
  call.on('error', () => {});
  const until = async (what: string, done: () => boolean, ms = 5_000) => {
    const end = Date.now() + ms;
    while (!done()) {
      if (Date.now() > end) assert.fail(`${what} never came: ${got.join(' ')}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  return { got, until };
}

const start = Date.UTC(2026, 0, 1);

test('relay GetFlows: all nodes by time, which nodes there are first, losses where they were', async (t) => {
  const a = await fakeNode(t, 'a');
  const b = await fakeNode(t, 'b');
  a.add(start + 1, start + 4, start + 5);
  b.add(start + 2, start + 3);
  b.lose(7, start + 3);
  b.add(start + 6);
  const { read } = await relayOver(t, [a, b]);
  assert.deepEqual(await read({ since: timestampFromMs(start) }), [
    'connected a,b',
    `a-${start + 1}`,
    `b-${start + 2}`,
    `b-${start + 3}`,
    'lost 7',
    `a-${start + 4}`,
    `a-${start + 5}`,
    `b-${start + 6}`,
  ]);
});

test('relay counts what it reads, what it hands on, and losses once for each client', async (t) => {
  const a = await fakeNode(t, 'a');
  const b = await fakeNode(t, 'b');
  a.add(start + 1, start + 2, start + 3);
  b.add(start + 4);
  b.lose(7, start + 4);
  const { read, counts } = await relayOver(t, [a, b]);
  await read({ since: timestampFromMs(start) });
  assert.deepEqual(counts, { received: 4, sent: 4, late: 0, lost: 7 });
  await read({ number: 1n });
  assert.ok(counts.received >= 5);
  assert.equal(counts.sent, 5, 'what is not among the last was not handed on');
});

test('relay GetFlows: the last and the first of all nodes are exact', async (t) => {
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => fakeNode(t, name)));
  const times = Array.from({ length: 300 }, (_, i) => start + i);
  for (const time of times) nodes[(time * 7) % 3]!.add(time);
  const { read } = await relayOver(t, nodes);
  const seqs = (got: string[]) =>
    got.filter((each) => /^[abc]-/.test(each)).map((each) => Number(each.slice(2)) - start);
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  assert.deepEqual(seqs(await read({ number: 20n })), range(280, 300));
  assert.deepEqual(seqs(await read({ number: 20n, first: true })), range(0, 20));
  assert.deepEqual(seqs(await read({ number: 10_000n })), range(0, 300));
});

test('relay GetFlows: following begins with exactly the last of all nodes', async (t) => {
  const [a, b] = [await fakeNode(t, 'a'), await fakeNode(t, 'b')];
  for (let i = 0; i < 50; i++) (i % 3 === 0 ? a : b).add(start + i);
  const { open } = await relayOver(t, [a, b]);
  const call = open({ number: 5n, follow: true });
  const { got, until } = await lines(call);
  await until('the last five', () => got.length >= 6);
  const now = Date.now() + 1;
  a.add(now);
  b.add(now + 1);
  await until('what is new', () => got.length >= 8);
  assert.deepEqual(got, [
    'connected a,b',
    ...[45, 46, 47, 48, 49].map((i) => `${i % 3 === 0 ? 'a' : 'b'}-${start + i}`),
    `a-${now}`,
    `b-${now + 1}`,
  ]);
  call.cancel();
});

test('relay GetFlows: nodes that fail, come back, join and leave while they are followed are told, and nothing twice', async (t) => {
  const [a, b, c] = [await fakeNode(t, 'a'), await fakeNode(t, 'b'), await fakeNode(t, 'c')];
  const { open, pool } = await relayOver(t, [a, b]);
  const call = open({ follow: true });
  const { got, until } = await lines(call);
  await until('the nodes', () => a.asked.length > 0 && b.asked.length > 0);
  const now = Date.now() + 1;
  a.add(now);
  b.add(now + 1);
  await until('flows', () => got.includes(`b-${now + 1}`));
  await b.stop();
  await until('the loss of b', () => got.includes('unavailable b'));
  b.add(now + 2);
  a.add(now + 3);
  await until('what a says alone', () => got.includes(`a-${now + 3}`));
  await b.start();
  await until('what b saw meanwhile', () => got.includes(`b-${now + 2}`));
  pool.set({ name: 'c', address: c.address });
  await until('c', () => got.includes('connected c'));
  await until('the request to c', () => c.asked.length > 0);
  c.add(now + 10);
  await until('what c says', () => got.includes(`c-${now + 10}`));
  pool.delete('c');
  await until('the end of c', () => got.includes('gone c'));
  assert.deepEqual(new Set(got).size, got.length, got.join(' '));
  call.cancel();
});

test('relay GetFlows: a silent node is waited for only so long, and what it says late is counted', async (t) => {
  const [a, b] = [await fakeNode(t, 'a'), await fakeNode(t, 'b')];
  a.add(start + 1, start + 3);
  b.add(start + 2);
  b.silent = true;
  const { open, late } = await relayOver(t, [a, b]);
  const began = performance.now();
  const { got, until } = await lines(open({ since: timestampFromMs(start) }));
  await until('the flows of a', () => got.includes(`a-${start + 3}`));
  assert.ok(performance.now() - began > 500);
  assert.deepEqual(
    got,
    ['connected a,b', `a-${start + 1}`, `a-${start + 3}`]
      .toSpliced(1, 0, 'error b')
      .sort((x, y) => got.indexOf(x) - got.indexOf(y)),
  );
  assert.ok(got.includes('error b'));

  const followed = open({ first: true, follow: true, since: timestampFromMs(start) });
  const live = await lines(followed);
  await live.until('the flows of a', () => live.got.includes(`a-${start + 3}`));
  b.silent = false;
  await live.until('what b says late', () => live.got.includes(`b-${start + 2}`));
  followed.cancel();
  await live.until('the count', () => late.b === 1);
});

test('relay GetFlows: what a node refuses the client is told', async (t) => {
  const { read } = await relayOver(t, [await fakeNode(t, 'a')]);
  await assert.rejects(read({ whitelist: [{ sourceIp: ['wrong'] }] }), (error: grpc.ServiceError) => {
    assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
    assert.match(error.details, /source_ip/);
    return true;
  });
});

test('relay GetFlows: a client that never reads holds the nodes back and nobody else', async (t) => {
  const a = await fakeNode(t, 'a', { padding: 1000 });
  const { read, address } = await relayOver(t, [a]);
  a.add(...Array.from({ length: 20_000 }, (_, i) => start + i));
  const before = process.memoryUsage().arrayBuffers;
  const connection = await connectRpc({ address });
  t.after(() => connection.close());
  const request = create(GetFlowsRequestSchema, { since: timestampFromMs(start) });
  connection
    .stream('/observer.Observer/GetFlows', toBinary(GetFlowsRequestSchema, request), { messages() {}, end() {} })
    .pause();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const given = a.given[0]!;
  assert.ok(given < 10_000, `${given} of 20000 flows were taken from the node`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(a.given[0]! - given < 1_000, 'it is still taken from');
  assert.ok(process.memoryUsage().arrayBuffers - before < 16 << 20);
  assert.equal((await read({ number: 3n })).length, 4);
  // Others get everything, and as it was: buffers are used again.
  assert.deepEqual(
    (await read({ since: timestampFromMs(start) })).slice(1),
    Array.from({ length: 20_000 }, (_, i) => `a-${start + i}`),
  );
});

test('relay: access narrows requests, leaves out responses and hides namespaces', async (t) => {
  const a = await fakeNode(t, 'a');
  a.add(start + 1, start + 2, start + 3);
  const hidden = Buffer.from(`a-${start + 2}`);
  const { read, client } = await relayOver(t, [a], {
    viewer: async () => ({
      everything: false,
      flows: (request) => ({
        request: () => ({
          ...request,
          blacklist: [
            ...request.blacklist,
            create(GetFlowsRequestSchema, { blacklist: [{ sourceIp: ['narrowed'] }] }).blacklist[0]!,
          ],
        }),
        show(bytes, from, to) {
          const shown = Buffer.from(bytes.subarray(from, to));
          return shown.includes(hidden) ? undefined : shown;
        },
      }),
      processes() {
        throw new Error('no processes');
      },
      requireEverything() {
        throw new Error('not everything');
      },
      namespace: () => false,
    }),
  });
  assert.deepEqual(await read({ number: 2n, first: true }), ['connected a', `a-${start + 1}`, `a-${start + 3}`]);
  assert.deepEqual(await read({ number: 2n }), ['connected a', `a-${start + 1}`, `a-${start + 3}`]);
  assert.equal(a.asked[0]!.blacklist[0]!.sourceIp[0], 'narrowed');
  const { namespaces } = (await callUnary(client, Observer.method.getNamespaces, {})) as unknown as {
    namespaces: unknown[];
  };
  assert.deepEqual(namespaces, []);
  const status = (await callUnary(client, Observer.method.serverStatus, {})) as unknown as Record<string, unknown>;
  assert.deepEqual(
    [status.numFlows, status.maxFlows, status.seenFlows, status.flowsRate, status.uptimeNs, status.numConnectedNodes],
    [0n, 0n, 0n, 0, 0n, 1],
  );
  const { nodes } = (await callUnary(client, Observer.method.getNodes, {})) as unknown as {
    nodes: { name: string; version: string; numFlows: bigint; address: string }[];
  };
  assert.deepEqual(
    nodes.map(({ name, version, numFlows, address }) => [name, version, numFlows, address]),
    [['a', '', 0n, '']],
  );
});

test('relay: what is granted may change while a stream runs, and end', async (t) => {
  const a = await fakeNode(t, 'a');
  let listener: GrantListener | undefined;
  let round = 0;
  const { open } = await relayOver(t, [a], {
    viewer: async () =>
      everythingViewer((each) => {
        listener = each;
        return () => {};
      }),
  });
  const call = open({ follow: true });
  const failed = new Promise<grpc.ServiceError>((resolve) => call.once('error', resolve as never));
  const { got, until } = await lines(call);
  await until('the request', () => a.asked.length === 1);
  a.add(Date.now() + ++round);
  await until('a flow', () => got.length === 2);
  listener!.changed();
  await until('the request anew', () => a.asked.length === 2);
  a.add(Date.now() + ++round);
  await until('another flow', () => got.length === 3);
  assert.equal(new Set(got).size, 3, got.join(' '));
  listener!.ended(new RpcError(RpcCode.permissionDenied, 'no more'));
  const { code, details } = await failed;
  assert.deepEqual([code, details], [grpc.status.PERMISSION_DENIED, 'no more']);
});

test('relay: states are summed, namespaces united, and a node that is away is named', async (t) => {
  const [a, b] = [await fakeNode(t, 'a'), await fakeNode(t, 'b')];
  const { client, pool, read } = await relayOver(t, [a, b]);
  await read({ number: 1n });
  pool.set({ name: 'gone', address: 'unix:/nonexistent' });
  const status = (await callUnary(client, Observer.method.serverStatus, {})) as unknown as Record<string, unknown>;
  assert.deepEqual(
    [status.numFlows, status.maxFlows, status.seenFlows, status.numConnectedNodes, status.numUnavailableNodes],
    [4n, 20n, 6n, 2, 1],
  );
  assert.deepEqual([status.unavailableNodes, status.flowsRate], [['gone'], 3]);
  const { nodes } = (await callUnary(client, Observer.method.getNodes, {})) as unknown as {
    nodes: { name: string; state: number; version: string }[];
  };
  assert.deepEqual(
    nodes.map(({ name, state, version }) => [name, state, version]),
    [
      ['a', 1, 'v1'],
      ['b', 1, 'v1'],
      ['gone', 2, ''],
    ],
  );
  const { namespaces } = (await callUnary(client, Observer.method.getNamespaces, {})) as unknown as {
    namespaces: { namespace: string }[];
  };
  assert.deepEqual(
    namespaces.map((each) => each.namespace),
    ['ns-a', 'ns-b'],
  );
});
