import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createStateFile } from './node-state.ts';

function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-state-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'deep/numbers.json');
  const corrupt: string[] = [];
  const check = (value: unknown) => {
    if (typeof (value as { n?: unknown }).n !== 'number') throw new Error('n must be\n a number');
    return value as { n: number };
  };
  return { path, corrupt, file: createStateFile(path, check, (file, reason) => corrupt.push(`${file}: ${reason}`)) };
}

test('a state file that is not there is undefined; what was saved comes back, readable by its owner only', (t) => {
  const { path, file, corrupt } = setUp(t);
  assert.equal(file.load(), undefined);
  file.save({ n: 1 });
  file.save({ n: 2 });
  assert.deepEqual(file.load(), { n: 2 });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(!existsSync(`${path}.tmp`));
  assert.deepEqual(corrupt, []);
});

test('content that cannot be used is set aside, told in one line, and not met again', (t) => {
  const { path, file, corrupt } = setUp(t);
  for (const text of ['', '{"n":', 'null', '{"n":"x"}', '\0\0']) {
    writeFileSync(path, text);
    assert.equal(file.load(), undefined);
    assert.equal(readFileSync(`${path}.corrupt`, 'utf8'), text);
    assert.ok(!existsSync(path));
    assert.equal(file.load(), undefined);
  }
  assert.equal(corrupt.length, 5);
  for (const line of corrupt) assert.doesNotMatch(line, /\n/);
});
