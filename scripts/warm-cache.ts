// Fills the cache of compiled code, so that the first agent of a fresh checkout starts as fast and small as the second.
import { spawnSync } from 'node:child_process';
import { globSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const mostEntries = 10_000;
const root = fileURLToPath(new URL('..', import.meta.url));
// Every version of a file leaves entries; nothing else removes them.
if (globSync(`${root}build/node-cache/*/*`).length > mostEntries)
  rmSync(`${root}build/node-cache`, { recursive: true, force: true });
const env = { ...process.env, NODE_COMPILE_CACHE: `${root}build/node-cache`, NODE_COMPILE_CACHE_PORTABLE: '1' };
// All of them: one that is missing loads the type stripper.
const modules = globSync('src/programs/**/*.ts', { cwd: root }).filter((path) => !path.endsWith('.test.ts'));
modules.push('lab/lab.ts');
const code = modules.map((path) => `await import(${JSON.stringify(root + path)});`).join('\n');
// With the flags of bin/weir: code compiled under others is not taken.
const flags = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=2',
  '--expose-gc',
  '--input-type=module',
  '-e',
  code,
];
const { status, stderr } = spawnSync(process.execPath, flags, { cwd: root, env, encoding: 'utf8' });
if (status !== 0) process.stderr.write(`the cache of compiled code could not be filled: ${stderr}\n`);
