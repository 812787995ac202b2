import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inputHash, partialName, partialOwner, removeAbandoned } from './cache.ts';
import { isNewEnough } from './go-toolchain.ts';
import { isOnPath } from './toolbox.ts';

const folder = mkdtempSync(join(tmpdir(), 'weir-cache-'));
process.env.XDG_CACHE_HOME = folder;
after(() => rmSync(folder, { recursive: true }));

test('inputHash() differs when a file or a text does', () => {
  const file = join(folder, 'go.sum');
  writeFileSync(file, 'a');
  const first = inputHash([file], ['flags']);
  assert.equal(inputHash([file], ['flags']), first);
  assert.notEqual(inputHash([file], ['other flags']), first);
  writeFileSync(file, 'b');
  assert.notEqual(inputHash([file], ['flags']), first);
});

test('removeAbandoned() removes what dead commands left, and neither whole things nor what is being made', () => {
  const programs = join(folder, 'weir/lab/programs/kubernetes-abc');
  mkdirSync(programs, { recursive: true });
  for (const name of ['kubernetes', 'kubernetes.999999999.partial']) writeFileSync(join(programs, name), '');
  const mine = partialName(join(programs, 'kubernetes'));
  writeFileSync(mine, '');
  removeAbandoned();
  assert.deepEqual(readdirSync(programs).sort(), ['kubernetes', `kubernetes.${process.pid}.partial`]);
  assert.equal(partialOwner(mine), process.pid);
});

test('isNewEnough() takes Go from 1.25 on, or from what is asked for', () => {
  assert.equal(isNewEnough('go version go1.19.8 linux/amd64'), false);
  assert.equal(isNewEnough('go version go1.25.0 linux/amd64'), true);
  assert.equal(isNewEnough('go version go1.25.0 linux/amd64', 26), false);
  assert.equal(isNewEnough('nonsense'), false);
});

test('isOnPath() finds programs by name and by path', () => {
  assert.equal(isOnPath('sh', '/nowhere:/bin'), true);
  assert.equal(isOnPath('no-such-program', '/bin'), false);
  assert.equal(isOnPath('/bin/sh', ''), true);
});
