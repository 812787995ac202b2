import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { choose, focusOf, type Group, groups, listedNames } from './selection.ts';

const group: Group = {
  name: 'some',
  title: '',
  selects: /^\[sig-network\] /,
  count: 2,
  leftOut: [{ tests: /\[Slow\]/, count: 1, reason: 'slow' }],
  nodes: 3,
  procs: 1,
};
const names = ['[sig-network] a (b)', '[sig-network] a (b) c', '[sig-network] d [Slow]', '[sig-node] e'];

test('choose() tells what is run and what is left out', () => {
  assert.deepEqual(choose(group, names), {
    chosen: names.slice(0, 2),
    leftOut: [{ name: '[sig-network] d [Slow]', reason: 'slow' }],
  });
});

test('choose() refuses a pattern that finds another number of tests', () => {
  assert.throws(() => choose(group, names.slice(1)), /selects 1 tests, not 2/);
  assert.throws(() => choose({ ...group, count: 3 }, names), /selects 2 tests, not 3/);
  assert.throws(() => choose({ ...group, leftOut: [{ ...group.leftOut[0]!, count: 2 }] }, names), /leaves out 1/);
});

test('focusOf() finds exactly the tests it was made from', () => {
  const focus = new RegExp(focusOf([names[0]!]));
  assert.deepEqual(
    names.map((name) => focus.test(`Kubernetes e2e suite ${name}`)),
    [true, false, false, false],
  );
});

test('listedNames() keeps names as they are, also one that ends with a space', () => {
  assert.deepEqual(listedNames('The following\n    a/b.go:10: [sig-network] one \n    a/c.go:2: two: three\n'), [
    '[sig-network] one ',
    'two: three',
  ]);
});

test('groups have names of their own, and a reason for all that they leave out', () => {
  assert.equal(new Set(groups.map((each) => each.name)).size, groups.length);
  for (const { leftOut } of groups) for (const each of leftOut) assert.ok(each.reason.length > 10 && each.count > 0);
});

test('docs/conformance.md says what is run and what is left out', () => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/conformance.md', import.meta.url)), 'utf8');
  for (const { name, count, nodes, leftOut } of groups) {
    assert.match(text, new RegExp(`^\\| \`${name}\` \\|.*\\| ${nodes} \\| ${count} \\|`, 'm'));
    for (const each of leftOut) assert.ok(text.includes(`| ${each.count} | ${each.reason} |`), each.reason);
  }
});
