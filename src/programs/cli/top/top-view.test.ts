import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { keysOf } from '../live-screen.ts';
import { groupings } from './choices.ts';
import { groupOf } from './groups.ts';
import { createTopWindow, sortRows, type TopRow, topText } from './top-table.ts';
import { afterKey, type TopState, topScreen } from './top-view.ts';

const state: TopState = { by: 'pod', sort: 'bytes', paused: false, offset: 0, done: false };
const facts = { windowSeconds: 10, lost: 0, news: '' };
const row = (name: string, over: Partial<TopRow> = {}): TopRow => ({
  source: `shop/${name}`,
  destination: 'shop/a-very-long-name-of-a-deployment-with-a-hash-7b97bb86c9-f4g26',
  bytesPerSecond: 2048,
  packetsPerSecond: 1.5,
  connectionsPerSecond: 0,
  drops: 0,
  ...over,
});
const flow = (over: object) =>
  create(FlowSchema, {
    nodeName: 'node1',
    IP: { source: '10.0.0.1', destination: '192.0.2.1' },
    l4: { protocol: { case: 'TCP', value: { sourcePort: 999, destinationPort: 443 } } },
    source: { identity: 300, namespace: 'shop', podName: 'web-7', workloads: [{ name: 'web', kind: 'Deployment' }] },
    destination: { identity: 9 },
    destinationNames: ['example.com.'],
    ...over,
  });

test('rows stand for what was asked for', () => {
  const of = (by: (typeof groupings)[number]) => Object.values(groupOf(flow({}), by)).join(' > ');
  assert.deepEqual(groupings.map(of), [
    'shop/web-7 > example.com.',
    'shop/web > world-ipv4',
    'shop > world-ipv4',
    'tcp/443',
    'shop/web > world-ipv4',
    'node1',
  ]);
});

test('what has left the window is not shown, and rates are a second’s', () => {
  const window = createTopWindow(10_000, 0);
  const begun = flow({ verdict: 1, traceReason: 1, time: { seconds: 1n, nanos: 0 } });
  window.add(begun, 1_000);
  assert.deepEqual(
    window.rows('pod', 4_000).map((each) => each.connectionsPerSecond),
    [0.25],
  );
  assert.deepEqual(window.rows('pod', 12_000), []);
});

test('rows are sorted by a column, then by name', () => {
  const rows = [row('b'), row('a'), row('c', { drops: 3 })];
  const names = (sort: Parameters<typeof sortRows>[1]) => sortRows(rows, sort).map((each) => each.source);
  assert.deepEqual(names('bytes'), ['shop/a', 'shop/b', 'shop/c']);
  assert.deepEqual(names('drops'), ['shop/c', 'shop/a', 'shop/b']);
});

test('keys change what is shown, each in turn', () => {
  const press = (text: string) => keysOf(text).reduce(afterKey, state);
  assert.equal(press('b').by, 'workload');
  assert.equal(press('bbbbbb').by, 'pod');
  assert.equal(press('ss').sort, 'connections');
  assert.equal(press('p').paused, true);
  assert.equal(press('\u001b[B\u001b[B\u001b[A').offset, 1);
  assert.equal(press('\u001b[A').offset, 0);
  assert.equal(press('q').done && press('\u0003').done, true);
  assert.deepEqual(press('x'), state);
});

for (const [columns, lines] of [
  [80, 24],
  [200, 50],
  [40, 5],
] as const)
  test(`a screen of ${columns} columns and ${lines} lines is filled and not overrun`, () => {
    const rows = Array.from({ length: 100 }, (_, i) => row(`client-with-a-long-name-too-${i}`));
    const screen = topScreen({ ...state, offset: 1000 }, rows, { columns, lines }, facts);
    assert.equal(screen.length, lines);
    for (const line of screen) assert.ok(line.length <= columns, line);
    if (columns >= 80) {
      assert.match(screen[1]!, /^SOURCE +DESTINATION +BYTES\/S▼ +PKTS\/S +CONN\/S +DROPS +RTT$/);
      assert.match(screen[2]!, /2\.0 KiB +1\.5 +0 +0 +-$/);
      assert.match(screen[0]!, /of 100/);
    }
  });

test('names cannot steer the terminal', () => {
  const rows = [row('\u001b[2J\u009b'), row('x', { destination: 'a\nb' })];
  const text = topScreen(state, rows, { columns: 120, lines: 10 }, { ...facts, news: '\u001b]0;x\u0007' }).join('\n');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: just those
  assert.doesNotMatch(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  assert.equal(topText(rows, { by: 'pod', sort: 'bytes' }).trimEnd().split('\n').length, 3);
});
