// The service as a client of the contract sees it.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import {
  GetProcessEventsRequestSchema,
  type GetProcessesResponse,
  LossSource,
  type ProcessEvent,
  Processes,
} from '../../../proto/gen/process/process_pb.js';
import { serveRpc } from '../rpc/serve-rpc.ts';
import { callUnary, serviceClient } from '../rpc/testdata/grpc-client.ts';
import { createProcessEvents } from './process-events.ts';
import type { ProcessRow } from './process-row.ts';
import { processService } from './process-service.ts';

const container = { id: 'c1', name: 'web', image: 'i', podUid: 'u', namespace: 'shop', pod: 'web-0' };
const row = (over: Partial<ProcessRow>): ProcessRow => ({
  execId: 'ZXhlYw',
  pid: 7,
  uid: 33,
  binary: '/usr/bin/curl',
  arguments: 'http://db',
  cwd: '/',
  startMs: 1_000,
  execMs: 2_000,
  exit: undefined,
  parent: undefined,
  container,
  ...over,
});

async function serve(t: TestContext, running: readonly ProcessRow[] = []) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-processes-'));
  const address = `unix:${join(folder, 'server.sock')}`;
  const events = createProcessEvents();
  const service = processService({ nodeName: 'node1', events, running: () => running });
  const server = await serveRpc({ address, services: [service] });
  const client = serviceClient(Processes, address);
  t.after(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  const open = (request: MessageInitShape<typeof GetProcessEventsRequestSchema>) =>
    client.getProcessEvents!(create(GetProcessEventsRequestSchema, request)) as grpc.ClientReadableStream<ProcessEvent>;
  const read = async (request: Parameters<typeof open>[0]) => {
    const got: ProcessEvent[] = [];
    for await (const each of open(request) as AsyncIterable<ProcessEvent>) got.push(each);
    return got;
  };
  return { events, client, open, read };
}

test('GetProcessEvents tells of exec and exit with the whole process, and of losses', async (t) => {
  const { events, read } = await serve(t);
  const parent = row({ execId: 'cGFyZW50' });
  events.add({ kind: 'exec', timeMs: 5_000, process: row({ parent }) });
  events.add({ kind: 'lost', timeMs: 5_500, count: 4 });
  events.add({ kind: 'exit', timeMs: 6_000, process: row({ exit: { atMs: 6_000, code: 0, signal: 9 } }) });
  const [exec, lost, exit, ...more] = await read({});
  assert.equal(more.length, 0);
  assert.equal(exec!.nodeName, 'node1');
  assert.equal(timestampMs(exec!.time!), 5_000);
  assert.ok(exec!.event.case === 'exec');
  const { process } = exec!.event.value;
  assert.deepEqual(
    [process!.execId, process!.parentExecId, process!.pid, process!.uid, process!.binary, process!.arguments],
    ['ZXhlYw', 'cGFyZW50', 7, 33, '/usr/bin/curl', 'http://db'],
  );
  assert.equal(process!.container?.pod, 'web-0');
  assert.ok(lost!.event.case === 'lost' && lost!.event.value.source === LossSource.KERNEL_RING);
  assert.equal(lost!.event.value.count, 4n);
  assert.ok(exit!.event.case === 'exit' && exit!.event.value.signal === 9);
});

test('GetProcessEvents keeps to its filter', async (t) => {
  const { events, read } = await serve(t);
  const other = { ...container, namespace: 'bank', pod: 'till-1' };
  events.add({ kind: 'exec', timeMs: 1, process: row({ pid: 1 }) });
  events.add({ kind: 'exec', timeMs: 2, process: row({ pid: 2, container: other }) });
  events.add({ kind: 'exec', timeMs: 3, process: row({ pid: 3, binary: '/bin/sh' }) });
  events.add({ kind: 'exec', timeMs: 4, process: row({ pid: 4, container: undefined }) });
  const pids = async (filter: object) =>
    (await read({ filter })).map(({ event }) => (event.case === 'exec' ? event.value.process!.pid : 0));
  assert.deepEqual(await pids({ namespaces: ['shop'] }), [1, 3]);
  assert.deepEqual(await pids({ namespaces: ['shop', 'bank'], binaries: ['curl'] }), [1, 2]);
  assert.deepEqual(await pids({ pods: ['shop/web'] }), [1, 3]);
  assert.deepEqual(await pids({ pods: ['/till'] }), [2]);
  assert.deepEqual(await pids({ pods: ['web'] }), []);
  assert.deepEqual(await pids({ inContainers: true }), [1, 2, 3]);
  assert.deepEqual(await pids({ binaries: ['/bin/*', 'nobody'] }), [3]);
});

test('GetProcessEvents gives events since a time to the microsecond', async (t) => {
  const { events, read } = await serve(t);
  const ms = Date.UTC(2026, 0, 1);
  for (const [pid, us] of [100, 101, 102].entries())
    events.add({ kind: 'exec', timeMs: ms + us / 1000, process: row({ pid }) });
  const all = await read({});
  const pids = async (since: (typeof all)[number]['time']) =>
    (await read(since === undefined ? {} : { since })).map(
      ({ event }) => event.case === 'exec' && event.value.process!.pid,
    );
  assert.deepEqual(await pids(all[1]!.time), [1, 2]);
  assert.deepEqual(await pids({ ...all[1]!.time!, nanos: all[1]!.time!.nanos + 1000 }), [2]);
});

test('GetProcessEvents follows', async (t) => {
  const { events, open } = await serve(t);
  events.add({ kind: 'exec', timeMs: 1, process: row({ pid: 1 }) });
  const call = open({ number: 1n, follow: true });
  const reader = (call as AsyncIterable<ProcessEvent>)[Symbol.asyncIterator]();
  const pid = async () => {
    const { event } = (await reader.next()).value as ProcessEvent;
    return event.case === 'exec' ? event.value.process!.pid : undefined;
  };
  assert.equal(await pid(), 1);
  events.add({ kind: 'exec', timeMs: 2, process: row({ pid: 2 }) });
  assert.equal(await pid(), 2);
  call.on('error', () => {});
  call.cancel();
});

test('GetProcesses gives what runs and is asked for', async (t) => {
  const { client } = await serve(t, [row({ pid: 1 }), row({ pid: 2, container: undefined })]);
  const ask = async (filter?: object) =>
    (
      (await callUnary(
        client,
        Processes.method.getProcesses,
        filter === undefined ? {} : { filter },
      )) as GetProcessesResponse
    ).processes.map((each) => each.pid);
  assert.deepEqual(await ask(), [1, 2]);
  assert.deepEqual(await ask({ namespaces: ['shop'] }), [1]);
});

test('a pattern that is too long is refused by the field’s name', async (t) => {
  const { read } = await serve(t);
  await assert.rejects(
    read({ filter: { binaries: ['x'.repeat(513)] } }),
    (error: grpc.ServiceError) => error.code === grpc.status.INVALID_ARGUMENT && /filter\.binaries/.test(error.details),
  );
});
