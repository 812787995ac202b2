// What programs began and ended on every node, read through the relay: by root all of it, by a tenant that of its namespace.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { attempt, type LabStatus } from '../../lab/lab.ts';
import { repository } from '../../lab/state.ts';
import { createPods, deletePods, inPod, podOn } from './process-scene.ts';
import { nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const weir = join(repository, 'bin/weir');
const [firstNode, secondNode] = nodeNames.real;
const [red, blue] = ['events-red', 'events-blue'] as const;

interface Told {
  process: { binary: string; arguments?: string; cwd?: string; exec_id: string; container?: { namespace: string } };
  code?: number;
}
interface Event {
  exec?: Told;
  exit?: Told;
  node_status?: { state_change: string; node_names: string[] };
  node_name: string;
  time: string;
}

describe('processes through the relay', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-events-'));
  let lab: SharedLab;
  let relay: LabStatus['relay'];
  let netns = '';

  before(async () => {
    lab = await sharedLab();
    const status = await lab.status();
    relay = status.relay;
    netns = status.controlPlane.netns;
    const sleep = ['sleep', 'infinity'];
    await createPods(lab, red, [podOn(red, 'one', firstNode, sleep)]);
    await createPods(lab, blue, [podOn(blue, 'two', secondNode, sleep)]);
    await lab.apply([
      ...['seer', 'reader'].map((name) => ({
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name, namespace: red },
      })),
      ...Object.entries({ seer: ['flows', 'processes'], reader: ['flows'] }).map(([name, verbs]) => ({
        apiVersion: 'weir.dev/v1alpha1',
        kind: 'FlowAccess',
        metadata: { name: `events-${name}` },
        spec: {
          subjects: [{ kind: 'ServiceAccount', name, namespace: red }],
          namespaces: [red],
          verbs,
          redactions: ['arguments'],
        },
      })),
    ]);
  });
  after(async () => {
    await lab?.kubectl(['delete', 'flowaccess', 'events-seer', 'events-reader', '--ignore-not-found']);
    for (const namespace of [red, blue]) await deletePods(lab, namespace);
    rmSync(folder, { recursive: true });
  });

  const asRoot = (...args: string[]) => [
    weir,
    'ps',
    '--events',
    '-o',
    'json',
    '--server',
    `unix:${relay.socket}`,
    ...args,
  ];
  async function asTenant(account: string, ...args: string[]): Promise<string[]> {
    const file = join(folder, account);
    writeFileSync(file, (await lab.kubectl(['create', 'token', account, '-n', red])).trim());
    return [
      ...['nsenter', `--net=${netns}`, '--', weir, 'ps', '--events', '-o', 'json', ...args],
      ...['--server', `tls://${relay.addresses[0]}`, '--token-file', file],
      ...['--tls-ca-cert-files', relay.caFile, '--tls-server-name', relay.serverName],
    ];
  }
  const parsed = (text: string) =>
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Event);
  async function read(command: readonly string[]): Promise<Event[]> {
    const done = await attempt(command);
    assert.equal(done.status, 0, done.stderr);
    return parsed(done.stdout);
  }
  const of = (events: readonly Event[], kind: 'exec' | 'exit', namespace: string) =>
    events.find((each) => each[kind]?.process.container?.namespace === namespace);

  /** Runs a program in a pod of each node, one after the other, each with another code. */
  async function runBoth(mark: string): Promise<void> {
    await inPod(red, 'one', 'sh', '-c', `cd /tmp; ls /${mark}; true`);
    await inPod(blue, 'two', 'sh', '-c', `cd /tmp; ls /${mark}; true`);
  }
  async function seen(mark: string, command: readonly string[], enough: (events: readonly Event[]) => boolean) {
    return waitFor(
      `the events of ${mark}`,
      async () => {
        const events = await read(command);
        return enough(events) ? events : undefined;
      },
      15_000,
      200,
    );
  }

  test('exec and exit of all nodes come in one order, with the node of each', async () => {
    const since = new Date().toISOString();
    await runBoth('in-order');
    const command = asRoot('--since', since, '--binary', 'ls');
    const events = await seen(
      'both',
      command,
      (all) => of(all, 'exit', red) !== undefined && of(all, 'exit', blue) !== undefined,
    );
    assert.deepEqual(events[0]!.node_status?.state_change, 'NODE_CONNECTED');
    assert.ok([firstNode, secondNode].every((node) => events[0]!.node_status!.node_names.includes(node)));
    const told = events.filter((each) => each.node_status === undefined);
    assert.deepEqual(
      told.map((each) => each.time),
      told.map((each) => each.time).toSorted(),
    );
    for (const [namespace, node] of [
      [red, firstNode],
      [blue, secondNode],
    ] as const) {
      const [exec, exit] = [of(events, 'exec', namespace)!, of(events, 'exit', namespace)!];
      assert.deepEqual([exec.node_name, exit.node_name], [node, node]);
      assert.equal(exec.exec!.process.arguments, '/in-order');
      assert.equal(exit.exit!.process.exec_id, exec.exec!.process.exec_id);
      assert.equal(exit.exit!.code, 2);
    }
    assert.equal(
      (await read(asRoot('--last', '1', '--since', since, '--binary', 'ls'))).filter((each) => each.exit).length,
      1,
    );
    assert.ok((await read(asRoot(blue, '--since', since))).every((each) => of([each], 'exec', red) === undefined));
  });

  test('what happens is told as it happens', async () => {
    const [program, ...args] = asRoot('-f', '--binary', 'ls', red);
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (part) => (text += part));
    try {
      await waitFor('the stream', async () => text.includes('NODE_CONNECTED'), 10_000);
      await waitFor(
        'an event',
        async () => {
          await runBoth('as-it-happens');
          return text.includes('"exit"');
        },
        20_000,
      );
      assert.ok(!text.includes(blue));
    } finally {
      child.kill();
    }
  });

  test('a tenant sees its own namespace, without what its grant leaves out, and only with the verb', async () => {
    const since = new Date().toISOString();
    await runBoth('of-a-tenant');
    await seen('both', asRoot('--since', since, '--binary', 'ls'), (all) => of(all, 'exit', blue) !== undefined);
    const command = await asTenant('seer', '--since', since, '--host');
    const events = await seen('its own', command, (all) => of(all, 'exit', red) !== undefined);
    const told = events.flatMap((each) => each.exec ?? each.exit ?? []);
    assert.ok(told.length > 0);
    assert.ok(
      told.every(({ process }) => process.container?.namespace === red),
      'nothing of others, nor of nodes',
    );
    assert.ok(told.every(({ process }) => process.arguments === undefined && process.cwd === undefined));
    assert.ok(told.some(({ process }) => process.binary.endsWith('/ls')));
    assert.equal(
      told.some(({ process }) => process.container?.namespace === blue),
      false,
    );
    const others = await read(await asTenant('seer', blue, '--since', since));
    assert.equal(others.flatMap((each) => each.exec ?? each.exit ?? []).length, 0);
    const refused = await attempt(await asTenant('reader', '--since', since));
    assert.notEqual(refused.status, 0);
    assert.match(refused.stderr, /may see the processes of no namespace; grant it with the verb processes/);
  });
});
