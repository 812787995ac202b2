import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockFolder } from './folder-lock.ts';

test('lockFolder() gives a lock to one at a time, and to the next who waits', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-lock-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const first = await lockFolder(folder, 0);
  assert.ok(first);
  assert.equal(await lockFolder(folder, 0), undefined);
  const waiting = lockFolder(folder, 5_000);
  first.close();
  const second = await waiting;
  assert.ok(second);
  second.close();
});
