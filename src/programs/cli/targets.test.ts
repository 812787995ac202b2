import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { WeirError } from '../../core/errors.ts';
import { askAgent, resolveTarget, resolveTargets } from './targets.ts';

function config(t: { after(fn: () => void): void }, contexts: Record<string, unknown>): NodeJS.ProcessEnv {
  const home = mkdtempSync(join(tmpdir(), 'weir-targets-'));
  t.after(() => rmSync(home, { recursive: true }));
  const folder = join(home, 'weir', 'contexts');
  mkdirSync(folder, { recursive: true });
  for (const [name, value] of Object.entries(contexts))
    writeFileSync(join(folder, `${name}.json`), typeof value === 'string' ? value : JSON.stringify(value));
  return { XDG_CONFIG_HOME: home };
}

const lab = {
  name: 'lab',
  nodes: [
    { name: 'node1', socket: '/a/agent.sock', hubbleSocket: '/a/hubble.sock' },
    { name: 'node2', socket: '/b/agent.sock' },
  ],
};
const code = (expected: string) => (error: unknown) => error instanceof WeirError && error.code === expected;

test('resolveTargets() without contexts is the socket of this machine', (t) => {
  assert.deepEqual(resolveTargets({}, config(t, {})), {
    targets: [{ socket: '/run/weir/agent.sock', hubbleSocket: '/run/weir/hubble.sock' }],
  });
});

test('resolveTargets() takes all nodes of the only context, and one with --node', (t) => {
  const env = config(t, { lab });
  assert.deepEqual(
    resolveTargets({}, env).targets.map((each) => each.hubbleSocket),
    ['/a/hubble.sock', '/b/hubble.sock'],
  );
  assert.equal(resolveTarget({ node: 'node2' }, env).socket, '/b/agent.sock');
  assert.throws(() => resolveTargets({ node: 'node9' }, env), code('NOT_FOUND'));
  assert.throws(() => resolveTargets({ context: 'other' }, env), code('NOT_FOUND'));
});

test('resolveTargets() asks which of several contexts is meant', (t) => {
  const env = config(t, { lab, two: { ...lab, name: 'two' } });
  assert.throws(() => resolveTargets({}, env), code('CONFIG_INVALID'));
  assert.equal(resolveTargets({ context: 'two' }, env).context, 'two');
  assert.equal(resolveTargets({}, { ...env, WEIR_CONTEXT: 'two' }).context, 'two');
});

test('resolveTargets() prefers a socket, whichever of the two it names', (t) => {
  const env = { ...config(t, { lab }), WEIR_SOCKET: '/x/agent.sock' };
  assert.equal(resolveTarget({}, env).socket, '/x/agent.sock');
  assert.deepEqual(resolveTarget({ socket: '/y/hubble.sock' }, env), {
    socket: '/y/agent.sock',
    hubbleSocket: '/y/hubble.sock',
  });
  assert.equal(resolveTarget({ context: 'lab' }, env).socket, '/a/agent.sock');
});

test('resolveTargets() says which context file is broken', (t) => {
  assert.throws(() => resolveTargets({}, config(t, { lab: '{' })), code('CONFIG_INVALID'));
  assert.throws(() => resolveTargets({}, config(t, { lab: { name: 'lab', nodes: [] } })), code('CONFIG_INVALID'));
});

test('askAgent() names the socket on which nothing listens', async () => {
  await assert.rejects(
    askAgent({ socket: '/nowhere/agent.sock', hubbleSocket: '' }, '/v1/status'),
    code('AGENT_UNREACHABLE'),
  );
});
