import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CommandNode, commandTree, leaves } from './command-tree.ts';
import { weirCommand } from './main.ts';

const tree = commandTree(await weirCommand());
const commands = leaves(tree);
const name = (path: readonly string[]) => path.join(' ');

test('every command has a description and examples that begin with its own name', () => {
  for (const { path, description, help } of commands) {
    assert.ok(description.length > 10, name(path));
    const examples = help.split('Examples:\n')[1];
    assert.ok(examples, `${name(path)} has no examples in --help`);
    assert.match(examples, new RegExp(`^  (?:source <\\()?${name(path)}\\b`), name(path));
  }
});

test('every command of commands has examples of them', () => {
  const groups = (node: CommandNode): CommandNode[] =>
    node.children.length === 0 ? [] : [node, ...node.children.flatMap(groups)];
  for (const { path, help } of groups(tree)) {
    const lines =
      help
        .split('Examples:\n')[1]
        ?.split('\n')
        .filter((line) => line.trim() !== '') ?? [];
    assert.ok(lines.length >= 2, `${name(path)} has no examples in --help`);
    for (const line of lines) assert.ok(line.startsWith(`  ${name(path)} `), line);
  }
});

test('every flag that names a value takes one', () => {
  for (const { path, flags } of commands)
    for (const flag of flags)
      assert.equal(
        flag.takesValue,
        /[<[]|\s[A-Z]/.test(flag.usage),
        `${name(path)} ${flag.usage}: write the value as <name>`,
      );
});

test('examples only use flags that their command has', () => {
  for (const { path, flags, help } of commands) {
    const own = help
      .split('Examples:\n')[1]!
      .split('\n')
      .filter((line) => line.startsWith(`  ${name(path)}`))
      .map((line) => line.replace(/\s#.*|\|.*/, ''));
    for (const flag of own.join(' ').match(/(?<=\s)--?[a-z][\w-]*/g) ?? [])
      assert.ok(
        path[1] === 'lab' || flags.some((each) => each.long === flag || each.short === flag),
        `${name(path)} has no ${flag}`,
      );
  }
});

test('commands that ask agents all take the same flags for where and how', () => {
  // These work on files and ask nobody.
  const offline = ['validate', 'test', 'diff', 'fmt', 'convert'];
  for (const { path, flags } of commands) {
    if (['agent', 'operator', 'relay', 'certs', 'lab', 'completion'].includes(path[1]!) || path[2] === 'cleanup')
      continue;
    if (path[1] === 'policy' && offline.includes(path[2]!)) continue;
    for (const flag of ['--context', '--node', '--socket', '--output'])
      assert.ok(
        flags.some((each) => each.long === flag),
        `${name(path)} lacks ${flag}`,
      );
  }
});
