import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromJson, type JsonObject } from '@bufbuild/protobuf';
import { AnySchema, anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import type { FlowRow } from './flow-row.ts';
import { compileRequestExtensions, packRequestExtensions } from './request-extensions.ts';

const curl = { execId: 'Y3VybA', binary: '/usr/bin/curl' };
const nginx = { execId: 'bmdpbng', binary: '/usr/sbin/nginx' };
const flow = (sourceProcess?: object, destinationProcess?: object) =>
  ({ sourceProcess, destinationProcess }) as unknown as FlowRow;
const flows = { both: flow(curl, nginx), from: flow(curl), to: flow(undefined, nginx), nobody: flow() };

function matching(process: readonly string[], notProcess: readonly string[] = []): string[] {
  const match = compileRequestExtensions(packRequestExtensions({ process, not_process: notProcess }));
  return Object.entries(flows).flatMap(([name, row]) => (match(row) && match(row) ? [name] : []));
}
const of = (json: JsonObject) => anyPack(StructSchema, fromJson(StructSchema, json));

test('a process is found at either end, by base name, path, wildcard or exec id', () => {
  assert.deepEqual(matching(['curl']), ['both', 'from']);
  assert.deepEqual(matching(['nginx']), ['both', 'to']);
  assert.deepEqual(matching(['/usr/sbin/*']), ['both', 'to']);
  assert.deepEqual(matching(['cur*']), ['both', 'from']);
  assert.deepEqual(matching(['Y3VybA']), ['both', 'from']);
  assert.deepEqual(matching(['bin/curl', 'url', '/usr/bin']), []);
});

test('patterns widen, and not_process leaves out what either end is', () => {
  assert.deepEqual(matching(['curl', 'nginx']), ['both', 'from', 'to']);
  assert.deepEqual(matching([], ['curl']), ['to', 'nobody']);
  assert.deepEqual(matching(['nginx'], ['curl']), ['to']);
  assert.deepEqual(matching([], []), ['both', 'from', 'to', 'nobody']);
});

test('one text stands for a list of one', () => {
  assert.equal(compileRequestExtensions(of({ process: 'curl' }))(flows.to), false);
});

for (const [what, extensions, says] of [
  ['an unknown member', of({ procces: ['curl'] }), /extensions\.procces: .*process, not_process/],
  ['what is no list', of({ process: 5 }), /extensions\.process: is no list/],
  ['an empty text', of({ not_process: [''] }), /extensions\.not_process/],
  ['too long a pattern', of({ process: ['x'.repeat(513)] }), /512/],
  ['too many patterns', of({ process: new Array(257).fill('x') }), /256/],
  ['another type', create(AnySchema, { typeUrl: 'type.googleapis.com/google.protobuf.Empty' }), /is no Struct/],
  [
    'bytes that are no Struct',
    create(AnySchema, { typeUrl: 'type.googleapis.com/google.protobuf.Struct', value: new Uint8Array([10, 200]) }),
    /cannot be read/,
  ],
] as const)
  test(`extensions with ${what} are refused`, () => {
    assert.throws(() => compileRequestExtensions(extensions), says);
  });
