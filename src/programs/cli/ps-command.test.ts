import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProcessView } from '../agent/processes-view.ts';
import { treeLines } from './ps-command.ts';

const view = (given: Partial<ProcessView>): ProcessView => ({
  execId: 'a',
  pid: 7,
  uid: 0,
  binary: '/bin/sh',
  arguments: '',
  cwd: '/',
  startedAt: '2026-01-01T00:00:00.000Z',
  namespace: 'shop',
  pod: 'web-0',
  container: 'web',
  containerId: 'c1',
  talks: [],
  ...given,
});

test('a process stands below the one that made it, with its peers', () => {
  const lines = treeLines('node1', [
    view({
      execId: 'b',
      parentExecId: 'a',
      pid: 9,
      binary: '/usr/bin/curl',
      arguments: 'http://db',
      talks: [{ direction: 'outgoing', peer: 'shop/db-0', port: 5432, protocol: 6, verdict: 'dropped' }],
    }),
    view({}),
  ]);
  assert.deepEqual(lines, [
    'node1: shop/web-0',
    '  web',
    '    7       /bin/sh',
    '      9       /usr/bin/curl http://db',
    '              → shop/db-0:5432  dropped',
  ]);
});

test('what a process calls itself cannot steer the terminal', () => {
  const lines = treeLines('node1', [view({ binary: '/tmp/\u001b[2Jx', arguments: 'a\nb \u202e' })]);
  assert.equal(lines.at(-1), '    7       /tmp/?[2Jx a?b ?');
});
