import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  GetProcessEventsRequestSchema,
  type ProcessEvent,
  ProcessEventSchema,
  ProcessSchema,
} from '../../../proto/gen/process/process_pb.js';
import { createProcessSight } from './process-sight.ts';
import type { AccessRights, Redaction } from './rights.ts';

const own = (processes: boolean, ...redactions: Redaction[]) => ({ processes, redactions: new Set(redactions) });
const sightOf = (
  rights: AccessRights,
  filter?: MessageInitShape<typeof GetProcessEventsRequestSchema>['filter'],
  nowMs?: () => number,
) => createProcessSight({ request: create(GetProcessEventsRequestSchema, { filter }), rights: () => rights, nowMs });
const process = (namespace: string | undefined) =>
  create(ProcessSchema, {
    pid: 7,
    binary: '/bin/sh',
    arguments: '-c id',
    cwd: '/srv',
    ...(namespace !== undefined && { container: { namespace, pod: 'web' } }),
  });

test('createProcessSight() shows processes of namespaces with that verb, and what their redactions leave', () => {
  const { showProcess } = sightOf(
    new Map([
      ['shop', own(true)],
      ['bank', own(true, 'arguments')],
      ['flows-only', own(false)],
    ]),
  );
  assert.equal(showProcess(process('shop'))?.arguments, '-c id');
  const redacted = showProcess(process('bank'))!;
  assert.deepEqual([redacted.binary, redacted.arguments, redacted.cwd], ['/bin/sh', '', '']);
  for (const other of ['flows-only', 'other', '', undefined]) assert.equal(showProcess(process(other)), undefined);
});

test('createProcessSight() asks for no other namespaces, whatever the client asks for', () => {
  const rights = new Map([
    ['shop', own(true)],
    ['bank', own(true)],
    ['flows-only', own(false)],
  ]);
  const asked = (namespaces?: string[]) => sightOf(rights, namespaces && { namespaces }).request().filter!;
  assert.deepEqual(asked().namespaces, ['shop', 'bank']);
  assert.equal(asked().inContainers, true);
  assert.deepEqual(asked(['bank', 'other']).namespaces, ['bank']);
  assert.deepEqual(asked(['flows-only']).namespaces, ['/'], 'nothing, and not all');
  const filter = sightOf(rights, { pods: ['shop/web'], binaries: ['curl'] }).request().filter!;
  assert.deepEqual([filter.pods, filter.binaries], [['shop/web'], ['curl']]);
});

test('createProcessSight() leaves out what was not asked for where there are more namespaces than agents take', () => {
  const many = new Map(Array.from({ length: 1_100 }, (_, i) => [`ns-${i}`, own(true)] as const));
  const sight = sightOf(many);
  assert.deepEqual(sight.request().filter!.namespaces, []);
  assert.equal(sight.showProcess(process('ns-5'))?.pid, 7);
  assert.equal(sight.showProcess(process('other')), undefined);
});

test('createProcessSight() takes no more namespaces than agents do', () => {
  const asked = (count: number) =>
    sightOf(new Map([['ns-5', own(true)]]), { namespaces: Array.from({ length: count }, (_, i) => `ns-${i}`) });
  assert.deepEqual(asked(1_024).request().filter!.namespaces, ['ns-5']);
  assert.throws(() => asked(1_025), { code: 3, message: 'filter.namespaces: more than 1024 values' });
});

test('createProcessSight() says a loss without number and node, and seldom', () => {
  let now = 1_000_000;
  const sight = sightOf(new Map([['shop', own(true)]]), undefined, () => now);
  const shown = (event: ProcessEvent['event']) => {
    const bytes = toBinary(ProcessEventSchema, create(ProcessEventSchema, { event, nodeName: 'node1' }));
    const answer = sight.show(bytes, 0, bytes.length);
    return answer && fromBinary(ProcessEventSchema, answer);
  };
  const lost = { case: 'lost', value: { count: 7n, source: 1 } } as ProcessEvent['event'];
  const told = shown(lost)!;
  assert.ok(told.event.case === 'lost');
  assert.deepEqual([told.event.value.count, told.event.value.source, told.nodeName], [0n, 0, '']);
  assert.equal(shown(lost), undefined);
  now += 60_000;
  assert.notEqual(shown(lost), undefined);
  const exit = shown({ case: 'exit', value: { process: process('shop'), code: 3 } } as ProcessEvent['event'])!;
  assert.ok(exit.event.case === 'exit' && exit.event.value.code === 3 && exit.nodeName === 'node1');
  assert.equal(shown({ case: 'exec', value: { process: process('bank') } } as ProcessEvent['event']), undefined);
  assert.equal(shown({ case: 'nodeStatus', value: {} } as ProcessEvent['event']), undefined);
});
