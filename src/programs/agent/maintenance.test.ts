import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkMaintenance, createMaintenance } from './maintenance.ts';
import { createStateFile } from './node-state.ts';

test('createMaintenance() keeps its list over restarts and says what changed', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'weir-')), 'maintenance.json');
  const open = (onChange: () => void) =>
    createMaintenance(createStateFile(path, checkMaintenance, assert.fail), onChange, () => 7);
  let changes = 0;
  const first = open(() => changes++);
  assert.deepEqual(first.rows(), []);
  assert.ok(first.set('10.0.0.1', 80, true));
  assert.ok(!first.set('10.0.0.1', 80, true));
  assert.ok(first.set('fd00::1', 80, true));
  assert.ok(first.set('fd00::1', 80, false));
  assert.equal(changes, 3);
  const second = open(assert.fail);
  assert.deepEqual(second.rows(), [{ address: '10.0.0.1', port: 80, sinceMs: 7 }]);
  assert.ok(second.has('10.0.0.1', 80));
  assert.ok(!second.has('10.0.0.1', 81));
});

test('checkMaintenance() refuses what is no such list', () => {
  assert.throws(() => checkMaintenance({}), /not a list/);
  assert.throws(() => checkMaintenance([{ address: '10.0.0.1' }]), /no address, port/);
});
