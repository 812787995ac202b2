import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { errorTable, errorText, WeirError } from './errors.ts';
import { exitCodes } from './exit-codes.ts';

const docs = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');

test('docs/errors.md has a section for each code, with its message and hint, and no others', () => {
  const sections = new Map(
    [...docs.matchAll(/^## ([A-Z0-9_]+)\n([\s\S]*?)(?=^#|$(?![\s\S]))/gm)].map(([, code, text]) => [code!, text!]),
  );
  assert.deepEqual([...sections.keys()].sort(), Object.keys(errorTable).sort());
  for (const [code, { message, hint }] of Object.entries(errorTable)) {
    assert.ok(sections.get(code)!.includes(message), `docs/errors.md: ${code} needs the text: ${message}`);
    assert.ok(sections.get(code)!.includes(hint), `docs/errors.md: ${code} needs the text: ${hint}`);
  }
});

test('docs/errors.md lists the exit codes', () => {
  const listed = [...docs.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));
  assert.deepEqual(listed, Object.values(exitCodes));
});

test('WeirError takes the hint of its code when none is given', () => {
  assert.equal(new WeirError('IP_INVALID', 'x').hint, errorTable.IP_INVALID.hint);
  assert.equal(new WeirError('IP_INVALID', 'x', 'do y').hint, 'do y');
});

test('errorText() is one line', () => {
  assert.equal(errorText(new Error('a\n  b')), 'a; b');
  assert.equal(errorText('c'), 'c');
});
