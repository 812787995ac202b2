import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { LossSource, ProcessEventSchema } from '../../../proto/gen/process/process_pb.js';
import { eventText } from './ps-events.ts';

const process = {
  pid: 7,
  binary: '/bin/curl',
  arguments: 'http://db',
  container: { id: 'c'.repeat(64), namespace: 'shop', pod: 'web-0' },
};
type Event = MessageInitShape<typeof ProcessEventSchema>['event'];
const line = (event: Event, nodeNames = false) =>
  eventText(
    create(ProcessEventSchema, { event, nodeName: 'node1', time: { seconds: 1n, nanos: 5_000_000 } }),
    nodeNames,
  ).replace(/^\w{3} +\d+ \d\d:\d\d:\d\d\.\d{3}/, 'TIME');

test('an exec says who, and what it runs', () => {
  assert.equal(line({ case: 'exec', value: { process } }), 'TIME shop/web-0 exec 7 /bin/curl http://db');
  assert.equal(
    line({ case: 'exec', value: { process: { ...process, container: undefined } } }, true),
    'TIME [node1] (node) exec 7 /bin/curl http://db',
  );
});

test('an exit says how it ended', () => {
  assert.match(line({ case: 'exit', value: { process, code: 3 } }), /exit 7 \/bin\/curl http:\/\/db \(code 3\)$/);
  assert.match(line({ case: 'exit', value: { process, signal: 9 } }), /\(signal 9\)$/);
});

test('losses say why', () => {
  assert.match(
    line({ case: 'lost', value: { source: LossSource.KERNEL_RING, count: 4n } }),
    /LOST: 4, .*ring was full/,
  );
  assert.match(line({ case: 'lost', value: { source: LossSource.SLOW_READER, count: 4n } }), /LOST: 4, .*too slow/);
  assert.match(line({ case: 'lost', value: {} }), /LOST$/);
});

test('arguments cannot steer the terminal', () => {
  assert.match(line({ case: 'exec', value: { process: { ...process, arguments: '\u001b[2J\nx' } } }), / \?\[2J\?x$/);
});
