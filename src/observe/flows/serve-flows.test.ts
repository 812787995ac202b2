// The server as a client of the contract sees it, and as somebody who sends it rubbish does.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create, fromJson, type MessageInitShape } from '@bufbuild/protobuf';
import { anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import fc from 'fast-check';
import { Health } from '../../../proto/gen/health/health_pb.js';
import {
  GetAgentEventsRequestSchema,
  type GetAgentEventsResponse,
  GetDebugEventsRequestSchema,
  GetFlowsRequestSchema,
  type GetFlowsResponse,
  Observer,
} from '../../../proto/gen/observer/observer_pb.js';
import { type ChangeNotification, NotifyRequestSchema, Peer } from '../../../proto/gen/peer/peer_pb.js';
import { callUnary, serviceClient } from '../rpc/testdata/grpc-client.ts';
import { createAgentEvents } from './agent-events.ts';
import { serveFlows } from './serve-flows.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

async function serve(t: TestContext, capacity = 64) {
  const scene = createScene(capacity);
  const folder = mkdtempSync(join(tmpdir(), 'weir-flows-'));
  const address = `unix:${join(folder, 'hubble.sock')}`;
  const agentEvents = createAgentEvents({ ...scene.tables, startedAtMs: 1000 });
  const source = {
    ring: scene.ring,
    losses: scene.losses,
    agentEvents,
    context: scene.context,
    startedAtMs: Date.now(),
    flowsRate: () => 1.5,
  };
  const server = await serveFlows({ address, source, nodes: scene.tables.nodes });
  const client = serviceClient(Observer, address);
  t.after(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  const flows = async (request: MessageInitShape<typeof GetFlowsRequestSchema>) => {
    const got: GetFlowsResponse[] = [];
    for await (const each of client.getFlows!(
      create(GetFlowsRequestSchema, request),
    ) as AsyncIterable<GetFlowsResponse>)
      got.push(each);
    return got;
  };
  return { ...scene, address, client, flows };
}

const { web, db, far } = addresses;

test('GetFlows gives flows with the node’s name and their time, and losses between them', async (t) => {
  const { record, flows, losses, ring } = await serve(t);
  record(makeEvent({ from: far, to: db, sport: 1 }));
  losses.add(1, 12, ring.next, Date.UTC(2026, 5, 1));
  record(makeEvent({ from: far, to: db, sport: 2 }));
  const got = await flows({});
  assert.deepEqual(
    got.map((each) => each.responseTypes.case),
    ['flow', 'lostEvents', 'flow'],
  );
  assert.ok(got.every((each) => each.nodeName === 'node1' && each.time !== undefined));
  assert.ok(got[1]!.responseTypes.case === 'lostEvents' && got[1]!.responseTypes.value.numEventsLost === 12n);
});

test('GetFlows keeps to filters and to the field mask', async (t) => {
  const { record, flows } = await serve(t);
  record(makeEvent({ from: web, to: db }), makeEvent({ from: far, to: db }));
  const [only, ...others] = await flows({
    whitelist: [{ sourcePod: ['shop/cart'] }],
    fieldMask: { paths: ['source.pod_name', 'l4.TCP.destination_port'] },
  });
  assert.equal(others.length, 0);
  const flow = only!.responseTypes.case === 'flow' ? only!.responseTypes.value : undefined;
  assert.equal(flow?.source?.podName, 'cart-7');
  assert.equal(flow?.source?.namespace, '');
  assert.equal(flow?.verdict, 0);
  assert.equal(flow?.time, undefined);
  assert.ok(only!.time);
  assert.deepEqual(
    flow?.l4?.protocol.case === 'TCP'
      ? [flow.l4.protocol.value.sourcePort, flow.l4.protocol.value.destinationPort]
      : [],
    [0, 5432],
  );
  // What was cut is not cut for others.
  const [whole] = await flows({ whitelist: [{ sourcePod: ['shop/cart'] }] });
  assert.equal(whole!.responseTypes.case === 'flow' && whole!.responseTypes.value.source?.namespace, 'shop');
});

for (const [name, request, says] of [
  ['a pattern that is none', { whitelist: [{ dnsQuery: ['('] }] }, /dns_query/],
  ['an expression that is none', { whitelist: [{ experimental: { celExpression: ['1 +'] } }] }, /cel_expression/],
  [
    'extensions that it does not know',
    { extensions: anyPack(StructSchema, fromJson(StructSchema, { who: ['x'] })) },
    /extensions\.who/,
  ],
  ['a field that a flow does not have', { fieldMask: { paths: ['source.nothing'] } }, /source\.nothing/],
] as const) {
  test(`GetFlows refuses ${name}`, async (t) => {
    const { flows } = await serve(t);
    await assert.rejects(
      flows(request as never),
      (error: grpc.ServiceError) => error.code === grpc.status.INVALID_ARGUMENT && says.test(error.details),
    );
  });
}

test('GetDebugEvents has none to give, and says so by ending', async (t) => {
  const { client } = await serve(t);
  const call = client.getDebugEvents!(create(GetDebugEventsRequestSchema)) as AsyncIterable<unknown>;
  for await (const _ of call) assert.fail();
});

test('ServerStatus, GetNodes, GetNamespaces and the health check answer', async (t) => {
  const { client, record, address } = await serve(t);
  record(makeEvent({ from: far, to: db }));
  const status = (await callUnary(client, Observer.method.serverStatus, {})) as unknown as Record<string, unknown>;
  assert.deepEqual(
    [status.numFlows, status.maxFlows, status.seenFlows, status.numConnectedNodes, status.flowsRate],
    [1n, 64n, 1n, 1, 1.5],
  );
  const { nodes } = (await callUnary(client, Observer.method.getNodes, {})) as unknown as { nodes: { name: string }[] };
  assert.deepEqual(
    nodes.map((each) => each.name),
    ['node1'],
  );
  const { namespaces } = (await callUnary(client, Observer.method.getNamespaces, {})) as unknown as {
    namespaces: { namespace: string }[];
  };
  assert.deepEqual(
    namespaces.map((each) => each.namespace),
    ['shop'],
  );
  const health = serviceClient(Health, address);
  assert.equal(((await callUnary(health, Health.method.check, {})) as unknown as { status: number }).status, 1);
  health.close();
});

test('GetAgentEvents tells what the agent did, and Notify which nodes there are', async (t) => {
  const { client, tables, address } = await serve(t);
  const policy = {
    key: 'NetworkPolicy/shop/p',
    kind: 'NetworkPolicy' as const,
    namespace: 'shop',
    name: 'p',
    enforcement: 'default' as const,
    specs: [],
    unenforced: [],
  };
  tables.policies.upsert(policy);
  tables.policies.delete('NetworkPolicy/shop/p');
  const kinds: number[] = [];
  for await (const each of client.getAgentEvents!(
    create(GetAgentEventsRequestSchema),
  ) as AsyncIterable<GetAgentEventsResponse>)
    kinds.push(each.agentEvent!.type);
  assert.deepEqual(kinds, [2, 3, 4]);

  tables.nodes.upsert([{ name: 'node1', addresses: ['10.9.0.1'], podCidrs: [], clusterPools: [] }]);
  const peers = serviceClient(Peer, address);
  const call = peers.notify!(create(NotifyRequestSchema)) as grpc.ClientReadableStream<ChangeNotification>;
  const seen: string[] = [];
  for await (const each of call as AsyncIterable<ChangeNotification>) {
    seen.push(`${each.type} ${each.name} ${each.address}`);
    if (seen.length === 1)
      tables.nodes.upsert({ name: 'node2', addresses: ['10.9.0.2'], podCidrs: [], clusterPools: [] });
    else break;
  }
  assert.deepEqual(seen, [`1 node1 ${address}`, '1 node2 10.9.0.2']);
  peers.close();
});

test('a stream that nobody reads takes nothing from the ring, and is told what it missed', async (t) => {
  const { client, record, ring } = await serve(t, 256);
  const call = client.getFlows!(
    create(GetFlowsRequestSchema, { follow: true, first: true }),
  ) as grpc.ClientReadableStream<GetFlowsResponse>;
  const batch = Array.from({ length: 500 }, (_, i) => makeEvent({ from: far, to: db, sport: i }));
  record(...batch);
  // The server has begun when the first flow is here.
  await once(call, 'readable');
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 200; i++) {
    record(...batch);
    await new Promise(setImmediate);
  }
  assert.ok(process.memoryUsage().arrayBuffers - before < 32 * 1024 * 1024);
  record(makeEvent({ from: far, to: db, sport: 60_000 }));
  let flows = 0;
  let lost = 0;
  let first = -1;
  for await (const each of call as AsyncIterable<GetFlowsResponse>) {
    if (each.responseTypes.case === 'lostEvents') lost += Number(each.responseTypes.value.numEventsLost);
    if (each.responseTypes.case !== 'flow') continue;
    const { uuid, l4 } = each.responseTypes.value;
    // The end of the uuid is the flow's number.
    if (flows++ === 0) first = Number.parseInt(uuid.slice(-12), 16);
    if (l4?.protocol.case === 'TCP' && l4.protocol.value.sourcePort === 60_000) break;
  }
  assert.equal(flows + lost, ring.next - first);
  assert.ok(lost > 0);
});

test('requests of random bytes are refused or answered, and the server goes on', async (t) => {
  const { address, flows, record } = await serve(t);
  record(makeEvent({ from: far, to: db }));
  const raw = new grpc.Client(address, grpc.credentials.createInsecure());
  const pass = (bytes: Buffer) => bytes;
  const send = (path: string, bytes: Uint8Array) =>
    new Promise<void>((resolve) => {
      const call = raw.makeServerStreamRequest(path, pass, pass, Buffer.from(bytes), { deadline: Date.now() + 200 });
      call.on('data', () => {});
      call.on('error', () => resolve());
      call.on('end', () => resolve());
    });
  const paths = ['/observer.Observer/GetFlows', '/observer.Observer/ServerStatus', '/peer.Peer/Notify'];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...paths), fc.uint8Array({ maxLength: 200 }), async (path, bytes) => {
      // `follow` would make an answer that never ends.
      await send(path, bytes);
    }),
    { numRuns: 150 },
  );
  raw.close();
  assert.equal((await flows({})).length, 1);
});
