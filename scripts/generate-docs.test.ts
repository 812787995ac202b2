import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { exitCodes } from '../src/core/exit-codes.ts';
import { generatedPages } from './generate-docs.ts';

const pages = await generatedPages();
for (const [path, text] of pages) {
  test(`${path} is what generate-docs would write`, () => {
    const file = new URL(`../${path}`, import.meta.url);
    const written = existsSync(file) ? readFileSync(file, 'utf8') : '';
    assert.ok(written === text, `${path} is not current: run make docs and commit it`);
  });
}

test('docs/cli.md explains every exit code', () => {
  const page = pages.get('docs/cli.md')!;
  for (const code of Object.values(exitCodes)) assert.match(page, new RegExp(`^\\| ${code} \\|`, 'm'));
});
