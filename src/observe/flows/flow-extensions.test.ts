import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary, toJson } from '@bufbuild/protobuf';
import { anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { ClosedBy, EndCause, EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import { createFlowEncoder } from './encode-flow.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const row: ProcessRow = {
  execId: 'x',
  pid: 7,
  uid: 0,
  binary: '/bin/curl',
  arguments: '',
  cwd: '/',
  startMs: 0,
  execMs: 0,
  exit: undefined,
  parent: undefined,
  container: undefined,
};

function shown(
  process: ProcessRow,
  event: Parameters<typeof makeEvent>[0] = { from: addresses.web, to: addresses.far },
) {
  const scene = createScene(8);
  scene.record(makeEvent(event));
  const flow = { ...scene.ring.get(0), sourceProcess: process };
  const bytes = createFlowEncoder(scene.context).flow(flow);
  const message = fromBinary(FlowSchema, bytes);
  return toJson(StructSchema, anyUnpack(message.extensions!, StructSchema)!) as Record<string, unknown>;
}

test('a process is in the extensions as one structure', () => {
  const parent = { ...row, pid: 1, binary: '/bin/sh', execId: 'p' };
  const container = { id: 'c', name: 'web', image: 'i:1', podUid: 'u', namespace: 'shop', pod: 'web-0' };
  assert.deepEqual(shown({ ...row, arguments: '-s x', parent, container }).source_process, {
    exec_id: 'x',
    pid: 7,
    uid: 0,
    binary: '/bin/curl',
    arguments: '-s x',
    cwd: '/',
    start_time: '1970-01-01T00:00:00.000Z',
    parents: ['/bin/sh[1]'],
    parent_exec_id: 'p',
    container_id: 'c',
    container: 'web',
    image: 'i:1',
  });
});

test('a container’s name that comes late is shown from then on', () => {
  const container = { id: 'c', name: '', image: '', podUid: 'u', namespace: '', pod: '' };
  const process = { ...row, container };
  assert.equal((shown(process).source_process as { container?: string }).container, undefined);
  Object.assign(container, { name: 'web' });
  assert.equal((shown(process).source_process as { container?: string }).container, 'web');
});

test('any names and arguments make a message that can be read', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (binary, args) => {
      shown({ ...row, binary, arguments: args, cwd: '' });
    }),
    { numRuns: 200 },
  );
});

test('how a connection ended: refused, without an answer, closed by whom', () => {
  const end = (given: object) =>
    shown(row, { from: addresses.web, to: addresses.far, type: EventType.EVENT_END, ...given });
  const { CLOSED_BY_ORIGINATOR: client, CLOSED_BY_RESPONDER: server } = ClosedBy;
  const refused = end({
    reason: EndCause.END_RESET,
    packets: [1n, 1n],
    direction: server,
    flags: EventFlags.EVENT_REPLIED,
  });
  assert.deepEqual([refused.end_cause, refused.closed_by], ['refused', 'server']);
  assert.equal(end({ reason: EndCause.END_EXPIRED, packets: [5n, 0n] }).end_cause, 'no answer');
  const closed = end({
    reason: EndCause.END_CLOSED,
    packets: [5n, 4n],
    direction: client,
    flags: EventFlags.EVENT_REPLIED,
  });
  assert.deepEqual([closed.end_cause, closed.closed_by], ['closed', 'client']);
  const reset = end({
    reason: EndCause.END_RESET,
    packets: [5n, 4n],
    direction: server,
    flags: EventFlags.EVENT_REPLIED,
  });
  assert.deepEqual([reset.end_cause, reset.closed_by], ['reset', 'server']);
});
