// The plugin as a container runtime runs it, against an agent that is there, away, slow of speech or rude.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test as plainTest, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { doPendingDeletes } from '../agent/pending-deletes.ts';

const plugin = fileURLToPath(new URL('../../../build/weir-cni', import.meta.url));
const test = (name: string, work: (t: TestContext) => Promise<void>) =>
  plainTest(name, { skip: !existsSync(plugin) && 'build/weir-cni is not built: run make build' }, work);
const config = JSON.stringify({ cniVersion: '1.0.0', name: 'weir', type: 'weir-cni' });
const pod = { CNI_CONTAINERID: 'c1', CNI_IFNAME: 'eth0', CNI_NETNS: '/n/c1', CNI_ARGS: 'K8S_POD_NAME=web' };

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-cni-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs the plugin with nothing of our environment. */
function run(where: string, env: Record<string, string>, input: string | Buffer = config) {
  const child = spawn(plugin, {
    env: { WEIR_AGENT_SOCKET: join(where, 'agent.sock'), WEIR_CNI_QUEUE: join(where, 'deep/queue'), ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let out = '';
  child.stdout.on('data', (part) => (out += part));
  child.stdin.on('error', () => {}); // It may have refused before reading all.
  child.stdin.end(input);
  return new Promise<{ code: number | null; out: string; json: Record<string, unknown> }>((resolve) =>
    child.on('close', (code) => {
      let json = {};
      if (out !== '') json = JSON.parse(out);
      resolve({ code, out, json });
    }),
  );
}

/** An agent that answers every connection with `answer`, once the whole request is there; undefined hangs up. */
async function agent(t: TestContext, where: string, answer: string | Buffer | undefined, pieces = 1) {
  const requests: string[] = [];
  const server = net.createServer((socket) => {
    let text = '';
    socket.on('error', () => {});
    socket.on('data', (part) => {
      text += part;
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? Number.NaN);
      const body = text.indexOf('\r\n\r\n');
      if (body < 0 || Buffer.byteLength(text.slice(body + 4)) < length) return;
      requests.push(text);
      if (answer === undefined) return void socket.destroy();
      const bytes = Buffer.from(answer);
      const size = Math.ceil(bytes.length / pieces);
      for (let i = 0; i < bytes.length; i += size) socket.write(bytes.subarray(i, i + size));
      socket.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(join(where, 'agent.sock'), resolve));
  t.after(() => void server.close());
  return requests;
}

const http = (status: number, body: string) =>
  `HTTP/1.1 ${status} X\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

test('VERSION answers without an agent, in the version of the configuration', async (t) => {
  const { code, json } = await run(folder(t), { CNI_COMMAND: 'VERSION' });
  assert.equal(code, 0);
  assert.deepEqual(json, { cniVersion: '1.0.0', supportedVersions: ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] });
});

test('ADD hands everything to the agent and its answer to the runtime', async (t) => {
  const where = folder(t);
  const requests = await agent(t, where, http(200, '{"cniVersion":"1.0.0","ips":[]}\n'), 5);
  const { code, out } = await run(where, { CNI_COMMAND: 'ADD', ...pod });
  assert.deepEqual([code, out], [0, '{"cniVersion":"1.0.0","ips":[]}\n']);
  assert.match(requests[0]!, /^POST \/cni HTTP\/1\.1\r\n/);
  for (const header of [
    'X-CNI_COMMAND: ADD',
    'X-CNI_CONTAINERID: c1',
    'X-CNI_NETNS: /n/c1',
    'X-CNI_ARGS: K8S_POD_NAME=web',
  ])
    assert.ok(requests[0]!.includes(`${header}\r\n`), header);
  assert.ok(requests[0]!.endsWith(`\r\n\r\n${config}`));
});

test('a refusal of the agent is the plugin’s, with exit code 1', async (t) => {
  const where = folder(t);
  await agent(t, where, http(500, '{"cniVersion":"1.0.0","code":101,"msg":"none left"}\n'));
  const { code, json } = await run(where, { CNI_COMMAND: 'ADD', ...pod });
  assert.deepEqual([code, json.code], [1, 101]);
});

test('ADD and CHECK without an agent say try again later; STATUS says not available', async (t) => {
  const where = folder(t);
  for (const [command, expected] of [
    ['ADD', 11],
    ['CHECK', 11],
    ['GC', 11],
    ['STATUS', 50],
  ] as const) {
    const { code, json } = await run(where, { CNI_COMMAND: command, ...pod });
    assert.deepEqual([code, json.code, json.cniVersion], [1, expected, '1.0.0'], command);
    assert.match(String(json.details), /agent\.sock: No such file/);
  }
});

test('DEL without an agent succeeds and is written down so that the agent can do it', async (t) => {
  const where = folder(t);
  for (let i = 0; i < 2; i++) {
    const { code, out } = await run(where, { CNI_COMMAND: 'DEL', ...pod });
    assert.deepEqual([code, out], [0, '']);
  }
  const queue = join(where, 'deep/queue');
  assert.deepEqual(readdirSync(queue), ['c1-eth0']);
  assert.equal(readFileSync(join(queue, 'c1-eth0'), 'utf8'), 'c1\neth0\n/n/c1\nK8S_POD_NAME=web\n');
  const done: string[] = [];
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  await doPendingDeletes(queue, async (container, ifname) => done.push(`${container} ${ifname}`) > 0, quiet);
  assert.deepEqual([done, readdirSync(queue)], [['c1 eth0'], []]);
});

test('DEL without an agent refuses names that would leave the folder, and says when it cannot write', async (t) => {
  const where = folder(t);
  for (const change of [
    { CNI_CONTAINERID: '../../etc/x' },
    { CNI_CONTAINERID: '' },
    { CNI_IFNAME: 'a/b' },
    { CNI_CONTAINERID: 'x'.repeat(201) },
  ]) {
    const { code, json } = await run(where, { CNI_COMMAND: 'DEL', ...pod, ...change });
    assert.deepEqual([code, json.code], [1, 4]);
  }
  const { json } = await run(where, { CNI_COMMAND: 'DEL', ...pod, WEIR_CNI_QUEUE: '/dev/null/queue' });
  assert.equal(json.code, 5);
});

test('an agent that dies before or in the middle of its answer never looks like success', async (t) => {
  const dying: (string | undefined)[] = [
    undefined,
    'HTTP/1.1 200 OK\r\nContent-Le',
    http(200, '{"cniVersion":"1.0.0","ips":[]}\n').slice(0, -10),
    'rubbish',
    '',
  ];
  for (const answer of dying) {
    const where = folder(t);
    await agent(t, where, answer);
    const { code, json } = await run(where, { CNI_COMMAND: 'ADD', ...pod }).catch((error) => {
      throw new Error(`after ${JSON.stringify(answer)}: ${error}`);
    });
    assert.equal(code, 1, JSON.stringify(answer));
    assert.equal(json.code, 11, JSON.stringify(answer));
  }
});

test('DEL whose agent dies in the middle of its answer is written down', async (t) => {
  const where = folder(t);
  await agent(t, where, 'HTTP/1.1 200 OK\r\nContent-Le');
  assert.equal((await run(where, { CNI_COMMAND: 'DEL', ...pod })).code, 0);
  assert.deepEqual(readdirSync(join(where, 'deep/queue')), ['c1-eth0']);
});

test('DEL that the agent answers with nothing is done', async (t) => {
  const where = folder(t);
  await agent(t, where, http(200, ''));
  const { code, out } = await run(where, { CNI_COMMAND: 'DEL', ...pod });
  assert.deepEqual([code, out], [0, '']);
  assert.ok(!existsSync(join(where, 'deep')));
});

test('a bad environment is refused with code 4, whatever the agent would say', async (t) => {
  const where = folder(t);
  assert.equal((await run(where, {})).json.code, 4);
  const { code, json } = await run(where, { CNI_COMMAND: 'ADD', ...pod, CNI_ARGS: 'a=b\r\nX-CNI_NETNS: /other' });
  assert.deepEqual([code, json.code, json.details], [1, 4, 'CNI_ARGS']);
});

test('odd configurations are passed on or refused, never crashed on', async (t) => {
  const where = folder(t);
  for (const input of [
    '',
    '\0',
    '{"cniVersion":',
    '{"cniVersion": "9"x',
    `{"cniVersion":"${'1'.repeat(99)}"}`,
    Buffer.alloc(5000, 255),
  ])
    assert.equal((await run(where, { CNI_COMMAND: 'ADD', ...pod }, input)).json.code, 11);
  const { code, json } = await run(where, { CNI_COMMAND: 'ADD', ...pod }, Buffer.alloc(3 << 20, 32));
  assert.deepEqual([code, json.code], [1, 6]);
  const long = await run(where, { CNI_COMMAND: 'ADD', ...pod, CNI_ARGS: 'x'.repeat(40_000) });
  assert.equal(long.json.code, 11);
});
