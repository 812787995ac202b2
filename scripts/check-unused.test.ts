import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exportsOf, unusedExports } from './check-unused.ts';

test('exportsOf() finds every form of export', () => {
  const text = [
    'export const a = 1;',
    'export async function b() {}',
    'export interface C {}',
    'const d = 1, e = 2;',
    'export { d, e as f };',
    "export { g } from './g.ts';",
  ].join('\n');
  assert.deepEqual(exportsOf(text), ['a', 'b', 'C', 'd', 'f']);
});

test('unusedExports() names what no other file mentions', () => {
  const files = new Map([
    [
      'a.ts',
      'export const used = 1;\nexport const dead = 2;\nexport interface Answer {}\nexport function ask(): Answer {}',
    ],
    ['b.ts', "import { used, ask } from './a.ts';"],
  ]);
  assert.deepEqual(unusedExports(files), [{ file: 'a.ts', name: 'dead' }]);
});
