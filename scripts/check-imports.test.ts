import assert from 'node:assert/strict';
import { test } from 'node:test';
import { importProblem, importsOf } from './check-imports.ts';

test('importProblem() lets imports run downwards, and pillars meet nowhere but in tables', () => {
  for (const [file, target] of [
    ['src/connect/ipam/a.ts', '../../core/ip.ts'],
    ['src/programs/agent/a.ts', '../../secure/policy/compile.ts'],
    ['src/core/a.ts', './ip.ts'],
    ['src/core/a.test.ts', 'node:test'],
    ['lab/a.ts', '../src/kernel/netns.ts'],
    ['src/kernel/a.ts', 'node:fs'],
  ] as const)
    assert.equal(importProblem(file, target), undefined, `${file} imports ${target}`);
  for (const [file, target, why] of [
    ['src/core/a.ts', 'node:fs', /core is pure/],
    ['src/core/a.ts', '../kernel/netns.ts', /run downwards/],
    ['src/kernel/a.ts', '../kube/client.ts', /run downwards/],
    ['src/connect/ipam/a.ts', '../../secure/policy/compile.ts', /are pillars/],
    ['src/programs/agent/a.ts', '../../../lab/up.ts', /nothing uses the lab/],
    ['lab/a.ts', '../src/kube/client.ts', /run downwards/],
  ] as const)
    assert.match(importProblem(file, target) ?? 'allowed', why, `${file} imports ${target}`);
});

test('importsOf() finds every form of import', () => {
  const text = [
    "import { a } from './a.ts';",
    "import type {\n  B,\n} from './b.ts';",
    "export * from './c.ts';",
    "const d = await import('./d.ts');",
    "import './e.ts';",
    "const text = 'no import';",
  ].join('\n');
  assert.deepEqual(importsOf(text), ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts']);
});
