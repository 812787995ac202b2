// What processes did and which run, of several agents: their own service over tables that the test fills, and the relay.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type * as grpc from '@grpc/grpc-js';
import {
  GetProcessEventsRequestSchema,
  type GetProcessesResponse,
  type ProcessEvent,
  ProcessEventSchema,
  Processes,
} from '../../../proto/gen/process/process_pb.js';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import { createProcessSight } from '../access/process-sight.ts';
import type { AccessRights } from '../access/rights.ts';
import { createProcessEvents, type ProcessEvents } from '../processes/process-events.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import { processService } from '../processes/process-service.ts';
import { connectRpc } from '../rpc/rpc-connection.ts';
import { methodPath } from '../rpc/rpc-service.ts';
import { RpcCode } from '../rpc/rpc-status.ts';
import { type RpcServer, serveRpc } from '../rpc/serve-rpc.ts';
import { callUnary, serviceClient } from '../rpc/testdata/grpc-client.ts';
import { createPeerPool } from './peer-pool.ts';
import { everythingViewer, type GrantListener, openAccess, type RelayAccess } from './relay-access.ts';
import { relayProcessService } from './relay-processes.ts';

const start = Date.UTC(2026, 0, 1);

function row(pid: number, namespace: string | undefined, over: Partial<ProcessRow> = {}): ProcessRow {
  return {
    execId: `id${pid}`,
    pid,
    uid: 0,
    binary: '/usr/bin/curl',
    arguments: 'http://db',
    cwd: '/srv',
    startMs: start,
    execMs: start,
    exit: undefined,
    parent: undefined,
    container:
      namespace === undefined
        ? undefined
        : { id: 'c', name: 'web', image: 'i', podUid: 'u', namespace, pod: `web-of-${namespace}` },
    ...over,
  };
}

interface Agent {
  readonly name: string;
  readonly address: string;
  readonly events: ProcessEvents;
  readonly running: ProcessRow[];
  exec(timeMs: number, process: ProcessRow): void;
  start(): Promise<void>;
  stop(): Promise<void>;
}

async function agent(t: TestContext, name: string, capacity?: number): Promise<Agent> {
  const folder = mkdtempSync(join(tmpdir(), 'weir-agent-'));
  const address = `unix:${join(folder, 'hubble.sock')}`;
  const events = createProcessEvents(capacity);
  const running: ProcessRow[] = [];
  let server: RpcServer | undefined;
  const made: Agent = {
    name,
    address,
    events,
    running,
    exec: (timeMs, process) => events.add({ kind: 'exec', timeMs, process }),
    async start() {
      server = await serveRpc({
        address,
        services: [processService({ nodeName: name, events, running: () => running })],
      });
    },
    async stop() {
      await server?.close();
      server = undefined;
    },
  };
  await made.start();
  t.after(async () => {
    await made.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  return made;
}

async function relayOver(t: TestContext, agents: readonly Agent[], access: RelayAccess = openAccess) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-relay-'));
  const pool = createPeerPool({});
  for (const { name, address } of agents) pool.set({ name, address });
  const counts = { received: 0, sent: 0, late: 0, lost: 0 };
  const service = relayProcessService({
    pool,
    access,
    name: 'relay',
    tailBytes: { left: 1 << 20 },
    counts,
    onLate() {},
    // Where the machine is busy, nodes that are there are connected to late.
    patience: { again: 100, connect: 10_000 },
  });
  const address = `unix:${join(folder, 'relay.sock')}`;
  const server = await serveRpc({ address, services: [service] });
  const client = serviceClient(Processes, address);
  t.after(async () => {
    client.close();
    await server.close();
    pool.close();
    rmSync(folder, { recursive: true });
  });
  const open = (request: MessageInitShape<typeof GetProcessEventsRequestSchema>) =>
    client.getProcessEvents!(create(GetProcessEventsRequestSchema, request)) as grpc.ClientReadableStream<ProcessEvent>;
  const read = async (request: Parameters<typeof open>[0]) => {
    const got: string[] = [];
    for await (const each of open(request) as AsyncIterable<ProcessEvent>) got.push(text(each));
    return got;
  };
  const follow = (request: Parameters<typeof open>[0]) => {
    const got: string[] = [];
    const call = open({ ...request, follow: true });
    call.on('data', (each) => got.push(text(each)));
    call.on('error', () => {});
    t.after(() => call.cancel());
    const has = (line: string) =>
      until(
        line,
        () => got.includes(line),
        () => got.join('; '),
      );
    return { got, has };
  };
  return { pool, client, counts, address, read, follow };
}

function text({ event: { case: kind, value }, nodeName }: ProcessEvent): string {
  switch (kind) {
    case 'exec':
    case 'exit':
      return `${nodeName} ${kind} ${value.process!.pid}`;
    case 'lost':
      return `${nodeName} lost ${value.count}`;
    case 'nodeStatus':
      return `${NodeState[value.stateChange]!.slice('NODE_'.length).toLowerCase()} ${[...value.nodeNames].sort().join(',')}`;
    default:
      return 'nothing';
  }
}

async function until(what: string, done: () => boolean, detail: () => string): Promise<void> {
  const end = Date.now() + 5_000;
  while (!done()) {
    if (Date.now() > end) assert.fail(`${what} never came: ${detail()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('relay GetProcessEvents: all nodes by time, with their names, losses in their place', async (t) => {
  const [a, b] = [await agent(t, 'a'), await agent(t, 'b')];
  a.exec(start + 1, row(1, 'shop'));
  a.events.add({ kind: 'exit', timeMs: start + 4, process: row(1, 'shop') });
  b.exec(start + 2, row(2, 'shop'));
  b.events.add({ kind: 'lost', timeMs: start + 3, count: 7 });
  const { read, counts } = await relayOver(t, [a, b]);
  const all = ['connected a,b', 'a exec 1', 'b exec 2', 'b lost 7', 'a exit 1'];
  assert.deepEqual(await read({}), all);
  assert.deepEqual(counts, { received: 3, sent: 3, late: 0, lost: 7 });
  assert.deepEqual(await read({ since: timestampFromMs(start + 3) }), [all[0], ...all.slice(3)]);
  assert.deepEqual(await read({ number: 2n }), [all[0], ...all.slice(2)], 'the last of all nodes');
  assert.deepEqual(await read({ filter: { binaries: ['nobody'] } }), ['connected a,b', 'b lost 7']);
});

test('relay GetProcessEvents: follows nodes that go and come back, and says so', async (t) => {
  const [a, b] = [await agent(t, 'a'), await agent(t, 'b')];
  const { follow } = await relayOver(t, [a, b]);
  const { got, has } = follow({ since: timestampFromMs(Date.now()) });
  await has('connected a,b');
  const now = Date.now() + 1_000;
  a.exec(now, row(1, 'shop'));
  b.exec(now + 1, row(2, 'shop'));
  await has('a exec 1');
  await has('b exec 2');
  await b.stop();
  await has('unavailable b');
  b.exec(now + 1.001, row(3, 'shop'));
  await b.start();
  await has('connected b');
  await has('b exec 3');
  assert.equal(new Set(got).size, got.length, got.join('; '));
});

test('relay GetProcessEvents: who reads nothing holds back the nodes, which count what it misses', async (t) => {
  const a = await agent(t, 'a', 64);
  const { address, counts } = await relayOver(t, [a]);
  const connection = await connectRpc({ address });
  t.after(() => connection.close());
  let first: number | undefined;
  let given = 0;
  let lost = 0;
  let last = -1;
  const request = toBinary(GetProcessEventsRequestSchema, create(GetProcessEventsRequestSchema, { follow: true }));
  const stream = connection.stream(methodPath(Processes.method.getProcessEvents), request, {
    messages(bytes, starts, ends) {
      for (const [i, from] of starts.entries()) {
        const { event } = fromBinary(ProcessEventSchema, bytes.subarray(from, ends[i]));
        if (event.case === 'lost') lost += Number(event.value.count);
        if (event.case !== 'exec') continue;
        given++;
        last = event.value.process!.pid;
        first ??= last;
      }
    },
    end() {},
  });
  let made = 0;
  const exec = () => a.exec(start + made, row(made++, 'shop', { arguments: 'x'.repeat(2_000) }));
  const detail = () => `${given} given, ${lost} lost of ${made}`;
  await until(
    'an event',
    () => {
      exec();
      return given > 0;
    },
    detail,
  );
  stream.pause();
  for (let turn = 0; turn < 100; turn++) {
    for (let i = 0; i < 50; i++) exec();
    await new Promise(setImmediate);
  }
  stream.resume();
  await until('the last', () => last === made - 1, detail);
  assert.ok(lost > 0, 'it was too slow');
  assert.equal(given + lost, made - first!);
  assert.equal(counts.lost, lost);
});

/** Access with these rights, which may change. */
function sightOf(rights: () => AccessRights, onListener: (listener: GrantListener) => void = () => {}): RelayAccess {
  return {
    viewer: async () => ({
      ...everythingViewer(),
      everything: false,
      processes(request) {
        const sight = createProcessSight({ request, rights });
        return {
          ...sight,
          follow(listener) {
            onListener(listener);
            return () => {};
          },
        };
      },
    }),
  };
}
const rightsIn = (...namespaces: string[]): AccessRights =>
  new Map(namespaces.map((each) => [each, { processes: true, redactions: new Set<never>() }]));

test('relay: who may see a part gets the processes of its namespaces, and counts are of these', async (t) => {
  const a = await agent(t, 'a');
  for (const [i, namespace] of ['shop', 'bank', undefined, 'shop', 'bank'].entries())
    a.exec(start + i, row(i, namespace));
  a.events.add({ kind: 'lost', timeMs: start + 9, count: 7 });
  a.running.push(row(10, 'shop'), row(11, 'bank'), row(12, undefined));
  const { read, client } = await relayOver(
    t,
    [a],
    sightOf(() => rightsIn('shop')),
  );
  const own = ['a exec 0', 'a exec 3'];
  assert.deepEqual(await read({}), ['connected a', ...own, ' lost 0']);
  assert.deepEqual(await read({ number: 1n }), ['connected a', own[1], ' lost 0']);
  assert.deepEqual(await read({ filter: { namespaces: ['bank'] } }), ['connected a', ' lost 0']);
  assert.deepEqual(await read({ filter: { namespaces: ['bank', 'shop'], pods: ['shop/'] } }), [
    'connected a',
    ...own,
    ' lost 0',
  ]);
  const running = async (filter?: object) =>
    ((await callUnary(client, Processes.method.getProcesses, filter ? { filter } : {})) as GetProcessesResponse)
      .processes;
  assert.deepEqual(
    (await running()).map(({ pid, nodeName }) => [pid, nodeName]),
    [[10, 'a']],
  );
  assert.deepEqual(await running({ namespaces: ['bank'] }), []);
});

test('relay: a running stream gets what new rights show', async (t) => {
  const a = await agent(t, 'a');
  let rights = rightsIn('shop');
  let listener: GrantListener | undefined;
  const { follow } = await relayOver(
    t,
    [a],
    sightOf(
      () => rights,
      (each) => (listener = each),
    ),
  );
  const { got, has } = follow({ since: timestampFromMs(Date.now()) });
  await has('connected a');
  const now = Date.now() + 1_000;
  a.exec(now, row(1, 'bank'));
  a.exec(now + 0.001, row(2, 'shop'));
  await has('a exec 2');
  rights = rightsIn('shop', 'bank');
  listener!.changed();
  a.exec(now + 1_000, row(3, 'bank'));
  await has('a exec 3');
  assert.deepEqual(got, ['connected a', 'a exec 2', 'a exec 3']);
});

test('relay GetProcesses: those of all nodes, with the node of each', async (t) => {
  const [a, b] = [await agent(t, 'a'), await agent(t, 'b')];
  a.running.push(row(1, 'shop'));
  b.running.push(row(2, 'bank'), row(3, undefined));
  const { client } = await relayOver(t, [a, b]);
  const ask = async (filter: object) =>
    ((await callUnary(client, Processes.method.getProcesses, { filter })) as GetProcessesResponse).processes.map(
      ({ pid, nodeName }) => `${nodeName} ${pid}`,
    );
  assert.deepEqual(await ask({}), ['a 1', 'b 2', 'b 3']);
  assert.deepEqual(await ask({ namespaces: ['bank'] }), ['b 2']);
  await assert.rejects(ask({ binaries: [''] }), (error: grpc.ServiceError) => /filter\.binaries/.test(error.details));
});

test('relay GetProcesses: what is too much for one node, or for all, and a node that does not answer are said', async (t) => {
  const agents = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => agent(t, name)));
  const { client, pool } = await relayOver(t, agents);
  const fails = (code: number, details: RegExp) =>
    assert.rejects(callUnary(client, Processes.method.getProcesses, {}), (error: grpc.ServiceError) => {
      assert.deepEqual([error.code, details.test(error.details)], [code, true], error.details);
      return true;
    });
  const large = (bytes: number) => row(1, 'shop', { arguments: 'x'.repeat(bytes) });
  const b = agents[1]!;
  b.running.push(large(5 << 20));
  await fails(RpcCode.resourceExhausted, /^b cannot answer that much: ask by namespace or pod: /);
  for (const each of agents) each.running.splice(0, 1, large(3 << 20));
  await fails(RpcCode.resourceExhausted, /^the processes of all nodes are too many/);
  for (const each of agents) each.running.splice(0, 1, row(1, 'shop'));
  const ask = async () => {
    const answer = (await callUnary(client, Processes.method.getProcesses, {})) as GetProcessesResponse;
    return [answer.processes.map(({ nodeName }) => nodeName).join(), answer.missingNodes];
  };
  assert.deepEqual(await ask(), ['a,b,c,d,e,f', []]);
  pool.set({ name: 'nobody', address: 'unix:/nowhere/hubble.sock' });
  await agents[2]!.stop();
  assert.deepEqual(await ask(), ['a,b,d,e,f', ['c', 'nobody']]);
  pool.delete('nobody');
  assert.deepEqual(await ask(), ['a,b,d,e,f', ['c']]);
});
