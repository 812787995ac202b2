import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { doPendingDeletes } from './pending-deletes.ts';

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

test('doPendingDeletes() does what the plugin wrote down, once, and lets half-written files be', async (t) => {
  const folder = join(mkdtempSync(join(tmpdir(), 'weir-deletes-')), 'queue');
  t.after(() => rmSync(join(folder, '..'), { recursive: true }));
  const done: string[] = [];
  const remove = async (container: string, ifname: string) => {
    done.push(`${container}/${ifname}`);
    return true;
  };
  assert.equal(await doPendingDeletes(folder, remove, quiet), 0);
  writeFileSync(join(folder, 'c1-eth0'), 'c1\neth0\n/n/c1\n\n');
  writeFileSync(join(folder, 'c2-eth0.77.tmp'), 'c2');
  writeFileSync(join(folder, 'broken'), 'rubbish');
  assert.equal(await doPendingDeletes(folder, remove, quiet), 2);
  assert.deepEqual(done, ['c1/eth0']);
  assert.deepEqual(readdirSync(folder), ['c2-eth0.77.tmp']);
  assert.equal(await doPendingDeletes(folder, remove, quiet), 0);
});

test('doPendingDeletes() keeps a deletion that failed for the next time, and does the others', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-deletes-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ['a', 'b', 'c']) writeFileSync(join(folder, name), `${name}\neth0\n`);
  const remove = async (container: string) => {
    if (container === 'b') throw new Error('the kernel said no');
    return true;
  };
  assert.equal(await doPendingDeletes(folder, remove, quiet), 2);
  assert.deepEqual(readdirSync(folder), ['b']);
});
