import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

const folder = mkdtempSync(join(tmpdir(), 'weir-state-'));
process.env.WEIR_LAB_STATE = folder;
const { checkLabName, labNames, paths, readRecord, requireLab, requireNode, writeRecord } = await import('./state.ts');
const { nodeSpecs } = await import('./up.ts');
const { withLock } = await import('./lock.ts');
const { mountPointsBelow } = await import('./down.ts');
after(() => rmSync(folder, { recursive: true }));

const record = {
  name: 'one',
  phase: 'up' as const,
  ipFamily: 'dual' as const,
  nodes: nodeSpecs(2, 1),
  agents: true,
  port: 16443,
  createdAt: '2026-01-01T00:00:00.000Z',
};

test('readRecord() gives what writeRecord() wrote, and nothing for a broken file', () => {
  writeRecord(record);
  assert.deepEqual(readRecord('one'), record);
  assert.deepEqual(labNames(), ['one']);
  writeFileSync(paths.record('one'), '{"name": "one", "nod');
  assert.equal(readRecord('one'), undefined);
  writeRecord(record);
});

test('requireLab() refuses a lab that is not complete', () => {
  writeRecord({ ...record, phase: 'starting' });
  assert.throws(() => requireLab('one'), /not complete/);
  assert.throws(() => requireLab('two'), /no lab "two" is up/);
  writeRecord(record);
  assert.equal(requireLab('one').port, 16443);
});

test('requireNode() names the nodes there are', () => {
  assert.throws(() => requireNode(record, 'node9'), {
    code: 'LAB_NOT_FOUND',
    hint: 'its nodes are node1, node2, node3',
  });
});

test('nodeSpecs() numbers nodes with kubelet first', () => {
  assert.deepEqual(
    nodeSpecs(1, 1).map((node) => [node.name, node.ordinal, node.kubelet]),
    [
      ['node1', 1, true],
      ['node2', 2, false],
    ],
  );
  for (const [withKubelet, kubeletless] of [
    [0, 0],
    [-1, 2],
    [1.5, 0],
    [201, 0],
  ] as const) {
    assert.throws(() => nodeSpecs(withKubelet, kubeletless), { code: 'LAB_ARGUMENT_INVALID' });
  }
});

test('checkLabName() refuses what could not be a path or a namespace', () => {
  for (const name of ['', '..', 'a/b', 'A', '-a', 'a-', 'a'.repeat(21)]) {
    assert.throws(() => checkLabName(name), { code: 'LAB_ARGUMENT_INVALID' }, name);
  }
  assert.equal(checkLabName('demo-2'), 'demo-2');
});

test('withLock() refuses a second command, and takes over from a dead one', async () => {
  await withLock('one', async () => {
    await assert.rejects(
      withLock('one', async () => undefined),
      { code: 'LAB_BUSY' },
    );
  });
  writeFileSync(paths.lock('one'), '{"pid": 1, "startTicks": "0", "bootId": "another"}');
  assert.equal(await withLock('one', async () => 'done'), 'done');
});

test('mountPointsBelow() gives the innermost first and nothing beside the folder', () => {
  const line = (point: string) => `30 1 0:1 / ${point} rw - tmpfs none rw`;
  const text = ['/var/lib/x', '/var/lib/x/a', '/var/lib/x/a/b\\040c', '/var/lib/xy/a'].map(line).join('\n');
  assert.deepEqual(mountPointsBelow('/var/lib/x', text), ['/var/lib/x/a/b c', '/var/lib/x/a']);
});
