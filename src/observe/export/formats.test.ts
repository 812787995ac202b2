import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EndCause, EventType } from '../../kernel/datapath.gen.ts';
import type { FlowRow } from '../flows/flow-row.ts';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import { cimJson } from './cim-json.ts';
import { ecsJson } from './ecs-json.ts';
import type { JsonObject } from './flow-json.ts';

const scene = createScene(8);
scene.record(
  makeEvent({ from: addresses.web, to: addresses.db, type: EventType.EVENT_DROP, reason: 133, cookie: [0, 8] }),
  makeEvent({
    ...{ from: addresses.web, to: addresses.far, type: EventType.EVENT_END, reason: EndCause.END_CLOSED },
    ...{ bytes: [100n, 2000n], packets: [3n, 4n], timeNs: 7_000_000_000n },
  }),
);
const [dropped, ended] = scene.rows() as [FlowRow, FlowRow];
const dns = {
  ...ended,
  dns: {
    response: true,
    query: 'a.example.',
    types: ['A'],
    rcode: 3,
    addresses: ['192.0.2.1'],
    cnames: [],
    recordTypes: [],
    ttl: 30,
    latencyNs: 2e6,
  },
} as FlowRow;
const process = {
  ...{
    execId: 'x',
    pid: 7,
    uid: 1000,
    binary: '/bin/curl',
    arguments: '-s x',
    cwd: '/',
    startMs: 0,
    execMs: 0,
    parent: undefined,
  },
  exit: { atMs: 9, code: 2, signal: 0 },
  container: { id: 'c', name: 'web', image: 'i:1', podUid: 'u', namespace: 'shop', pod: 'web-0' },
};
const exit = { kind: 'process', event: { kind: 'exit', timeMs: 9, process } } as const;
const loss = { kind: 'lost', loss: { source: 'EXPORT_QUEUE', count: 4, firstMs: 1, lastMs: 2, id: 'l' } } as const;
const clean = (value: JsonObject) => JSON.parse(JSON.stringify(value)) as Record<string, never>;

test('ECS: a denial is an alert with the policy and rule as its rule', () => {
  const { event, rule, weir, source } = clean(ecsJson({ kind: 'flow', row: dropped }, scene.context)) as Record<
    string,
    JsonObject
  >;
  assert.deepEqual([event!.kind, event!.type, event!.reason], ['alert', ['connection', 'denied'], 'POLICY_DENIED']);
  assert.deepEqual(rule!.name, ['shop/default-deny']);
  assert.deepEqual([weir!.verdict, source!.ip, source!.port], ['DROPPED', addresses.web, 43210]);
});

test('ECS: an end has bytes by side, and its duration in nanoseconds', () => {
  const { event, source, destination, network } = clean(ecsJson({ kind: 'flow', row: ended }, scene.context)) as Record<
    string,
    JsonObject
  >;
  assert.deepEqual([event!.action, event!.reason, event!.duration], ['end', 'closed', 2e9]);
  assert.deepEqual([source!.bytes, destination!.bytes, network!.bytes], [100, 2000, 2100]);
  assert.equal(event!.start, '2026-01-01T00:00:05Z');
});

test('ECS: DNS, processes and losses', () => {
  const answer = clean(ecsJson({ kind: 'flow', row: dns }, scene.context)) as Record<string, JsonObject>;
  assert.deepEqual(answer.dns!.question, { name: 'a.example', type: 'A' });
  const ended = clean(ecsJson(exit, scene.context)) as Record<string, JsonObject>;
  assert.deepEqual(
    [ended.event!.type, ended.process!.exit_code, ended.process!.command_line],
    [['end'], 2, '/bin/curl -s x'],
  );
  assert.deepEqual((clean(ecsJson(loss, scene.context)) as Record<string, JsonObject>).weir, {
    lost: { source: 'EXPORT_QUEUE', count: 4 },
  });
});

test('CIM: traffic, resolution, processes', () => {
  const traffic = clean(cimJson({ kind: 'flow', row: ended }, scene.context)) as JsonObject;
  const { action, src, dest_port, transport, bytes_in, bytes_out, duration } = traffic;
  assert.deepEqual(
    [action, src, dest_port, transport, bytes_in, bytes_out, duration],
    ['teardown', 'shop/web-1', 5432, 'tcp', 2000, 100, 2],
  );
  const blocked = cimJson({ kind: 'flow', row: dropped }, scene.context);
  assert.deepEqual([blocked.action, blocked.rule], ['blocked', ['shop/default-deny']]);
  const { message_type, query, reply_code_id, answer } = cimJson({ kind: 'flow', row: dns }, scene.context);
  assert.deepEqual([message_type, query, reply_code_id, answer], ['Response', 'a.example', 3, ['192.0.2.1']]);
  const stopped = cimJson(exit, scene.context);
  assert.deepEqual(
    [stopped.action, stopped.process, stopped.process_name, stopped.user_id, stopped.exit_code],
    ['stopped', '/bin/curl -s x', 'curl', 1000, 2],
  );
});
