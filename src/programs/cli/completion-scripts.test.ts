import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { commandTree, leaves } from './command-tree.ts';
import { shells } from './completion-command.ts';
import { completionNames } from './completion-names.ts';
import { completionScript } from './completion-scripts.ts';
import { weirCommand } from './main.ts';

const tree = commandTree(await weirCommand());

/** What bash offers for lines; the last word of each is being typed. */
function complete(lines: readonly (readonly string[])[], env: NodeJS.ProcessEnv = {}): string[][] {
  const asks = lines.map((words) => {
    const quoted = words.map((word) => `'${word}'`).join(' ');
    return `COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; COMPREPLY=(); _weir; echo "\${COMPREPLY[*]}"`;
  });
  const script = `${completionScript('bash', tree)}\n${asks.join('\n')}`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', script], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  });
  assert.equal(stderr, '');
  return stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => line.split(' ').filter(Boolean));
}

test('bash completes commands, commands below them, flags and their values', () => {
  const [commands, below, flags, choices, after, shell] = complete([
    ['weir', 'en'],
    ['weir', 'endpoint', ''],
    ['weir', 'ct', 'list', '--p'],
    ['weir', 'endpoint', 'list', '-o', ''],
    ['weir', 'endpoint', 'list', '-o', 'json', '--n'],
    ['weir', 'completion', 'b'],
  ]);
  assert.deepEqual(commands, ['endpoint']);
  assert.deepEqual(below, ['list', 'get', '--help']);
  assert.deepEqual(flags, ['--port', '--protocol']);
  assert.deepEqual(choices, ['table', 'json', 'yaml']);
  assert.deepEqual(after, ['--node', '--namespace']);
  assert.deepEqual(shell, ['bash']);
});

test('bash completes every command of the tree from its first words', () => {
  const paths = leaves(tree).map((leaf) => leaf.path);
  const answers = complete(paths.map((path) => [...path.slice(0, -1), path.at(-1)!]));
  for (const [i, path] of paths.entries()) assert.ok(answers[i]!.includes(path.at(-1)!), path.join(' '));
});

test('bash completes the names of contexts from their folder', (t) => {
  const home = mkdtempSync(join(tmpdir(), 'weir-completion-'));
  t.after(() => rmSync(home, { recursive: true }));
  mkdirSync(join(home, 'weir/contexts'), { recursive: true });
  for (const name of ['lab', 'other']) writeFileSync(join(home, `weir/contexts/${name}.json`), '{}');
  const [names, none] = complete(
    [
      ['weir', 'status', '--context', ''],
      ['weir', 'status', '--context', 'x'],
    ],
    {
      XDG_CONFIG_HOME: home,
    },
  );
  assert.deepEqual(names, ['lab', 'other']);
  assert.deepEqual(none, []);
});

test('bash completes values of filters, and asks agents for names', (t) => {
  const home = mkdtempSync(join(tmpdir(), 'weir-completion-'));
  t.after(() => rmSync(home, { recursive: true }));
  // Stands for the program: says what it was asked.
  const weir = join(home, 'weir');
  writeFileSync(weir, '#!/bin/bash\n[ "$3" = --names ] && echo "asked-$4$5$6"\n', { mode: 0o755 });
  const [verdicts, reasons, pods, namespaces, why, flags] = complete([
    ['weir', 'observe', '--verdict', 'd'],
    ['weir', 'observe', '--drop-reason', 'POLICY_D'],
    [weir, 'observe', '--context', 'lab', '--from-pod', ''],
    [weir, 'top', '-n', ''],
    [weir, 'why', 'asked'],
    [weir, 'why', '--po'],
  ]);
  assert.deepEqual(verdicts, ['dropped']);
  assert.deepEqual(reasons, ['POLICY_DENIED']);
  assert.deepEqual(pods, ['asked-pods--contextlab']);
  assert.deepEqual(namespaces, ['asked-namespaces']);
  assert.deepEqual(why, ['asked-pods']);
  assert.deepEqual(flags, ['--port']);
});

test('names that nobody tells are none', async () => {
  assert.deepEqual(await completionNames('pods', { socket: '/nowhere/agent.sock' }), []);
  assert.deepEqual(await completionNames('nodes', { context: 'of that name there is none' }), []);
});

test('every script names every command and its flags', () => {
  for (const shell of shells) {
    const script = completionScript(shell, tree);
    for (const leaf of leaves(tree)) {
      assert.ok(script.includes(leaf.path.slice(1).join(' ')), `${shell}: ${leaf.path.join(' ')}`);
      for (const flag of leaf.flags)
        if (flag.long) assert.ok(script.includes(shell === 'fish' ? `-l ${flag.long.slice(2)}` : flag.long));
    }
  }
});

for (const shell of ['zsh', 'fish'] as const) {
  const path = ['/usr/bin', '/bin'].map((folder) => join(folder, shell)).find(existsSync);
  test(`${shell} can read its script`, { skip: path === undefined && `${shell} is not on this machine` }, () => {
    const { stderr } = spawnSync(path!, ['-n', '-c', completionScript(shell, tree)], { encoding: 'utf8' });
    assert.equal(stderr, '');
  });
}
