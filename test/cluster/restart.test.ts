// What a restart must not do: lose packets, forget pods, reopen what policy closed, or write what is there already.
// And what an agent must do when something went on without it, or around it.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import {
  addPod,
  callPlugin,
  deletePod,
  nodeExec,
  podCommand,
  startAgent,
  stopAgent,
  waitForAgent,
} from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { askSteadily, type Steady, serveSteady } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const [near, far] = nodeNames.bare;
const port = 7000;

interface Status {
  problems: string[];
  healthy: boolean;
  apiServer: { connected: boolean };
  maps: { name: string; rows: number; adopted: { same: number; changed: number; added: number; pruned: number } }[];
}
interface Endpoint {
  id: number;
  namespace: string;
  pod: string;
  identity: number;
  ipv4: string;
  ipv6: string;
}

describe('restart', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  const servers: { close(): void }[] = [];

  before(async () => {
    lab = await sharedLab();
    // What ends while an agent is away is rightly pruned when it is back: here nothing may.
    await waitFor(
      'what earlier tests left to be gone',
      async () => !(await lab.api.list('/api/v1/namespaces')).some((each) => each.metadata.deletionTimestamp),
      90_000,
      500,
    );
    scene = await createScene(lab, 'restart');
    await scene.add({ node: near, name: 'client', labels: { app: 'client' } });
    await scene.add({ node: near, name: 'stranger', labels: { app: 'stranger' } });
    for (const [name, node] of [
      ['server-near', near],
      ['server-far', far],
    ] as const) {
      const pod = await scene.add({ node, name, labels: { app: 'server' } });
      servers.push(await serveSteady(lab.record, pod, port));
    }
    await scene.policy('server', {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }] }],
    });
    await scene.policy('client', {
      podSelector: { matchLabels: { app: 'client' } },
      policyTypes: ['Egress'],
      egress: [
        { to: [{ podSelector: { matchLabels: { app: 'server' } } }], ports: [{ port }, { port, protocol: 'UDP' }] },
      ],
    });
  });
  after(async () => {
    for (const server of servers) server.close();
    await scene?.close();
  });

  const start = async (node: string) => {
    await startAgent(labName, node);
    await waitForAgent(labName, node);
    await synced(node);
  };
  const synced = (node: string) =>
    waitFor(
      `the agent of ${node} to be in step`,
      async () => (await lab.agent<{ synced: boolean }>(node, '/v1/sync')).synced,
      20_000,
    );
  const kill = (node: string) => stopAgent(labName, node, 'kill');
  const ownEndpoints = async (node: string) =>
    (await lab.agent<Endpoint[]>(node, '/v1/endpoints'))
      .filter((row) => row.namespace === 'restart')
      .map(({ id, pod, identity, ipv4, ipv6 }) => ({ id, pod, identity, ipv4, ipv6 }))
      .sort((a, b) => a.id - b.id);
  const stateDir = async (node: string) => (await lab.status()).nodes.find((each) => each.name === node)!.folders.state;

  /** What a test that failed has left running. */
  const running: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const stop of running.splice(0)) await stop();
    for (const node of nodeNames.bare) await start(node);
  });

  function traffic(from = 'client'): Steady {
    const targets = ['server-near', 'server-far'].flatMap((name) => scene.pod(name).addresses);
    const steady = askSteadily(
      podCommand(lab.record, scene.pod(from), [compileTool('steady'), 'ask', String(port), '5', ...targets]),
    );
    running.push(steady.stop);
    return steady;
  }
  /** Tries what policy closes, again and again, until stopped; gives what got through. */
  function knockOnClosedDoors() {
    let going = true;
    let tries = 0;
    const opened: string[] = [];
    const done = (async () => {
      while (going) {
        for (const [from, to, at] of [
          ['stranger', 'server-near', port],
          ['stranger', 'server-far', port],
          ['client', 'stranger', 80],
        ] as const) {
          const outcome = await scene.probe(from, to, at);
          if (outcome !== 'silent') opened.push(`${from} to ${to}: ${outcome}`);
          tries++;
        }
      }
    })();
    const stop = async () => {
      going = false;
      await done;
      return opened;
    };
    running.push(stop);
    return { tries: () => tries, stop };
  }
  async function lossesOf(steady: Steady): Promise<void> {
    const { counts, losses } = await steady.stop();
    assert.deepEqual({ lost: counts.lost, retransmitted: counts.retransmitted }, { lost: 0, retransmitted: 0 }, losses);
  }

  test('kill -9 of both agents under traffic loses no packet and opens nothing; the restart writes only differences', async () => {
    const before = { near: await ownEndpoints(near), far: await ownEndpoints(far) };
    const steady = traffic();
    const doors = knockOnClosedDoors();
    await steady.more(1200); // within a second the agents have written down what they gave numbers to
    await Promise.all([kill(near), kill(far)]);
    await steady.more(1500);
    await Promise.all([start(near), start(far)]);
    await steady.more(1000);
    assert.deepEqual(await doors.stop(), []);
    assert.ok(doors.tries() > 6);
    await lossesOf(steady);
    assert.deepEqual({ near: await ownEndpoints(near), far: await ownEndpoints(far) }, before);
    for (const node of nodeNames.bare) {
      const { maps } = await lab.agent<Status>(node, '/v1/status');
      for (const { name, rows, adopted } of maps)
        assert.deepEqual({ name, ...adopted }, { name, same: rows, changed: 0, added: 0, pruned: 0 }, node);
      assert.ok(
        maps.every((map) => map.rows > 0),
        `${node} has no empty map`,
      );
    }
  });

  test('a new pod loses no packet while its hook is exchanged, nor when the agent is killed before', async () => {
    const hooks = async (name: string) => {
      const { addresses } = scene.pod(name);
      const row = (await ownEndpoints(near)).find((each) => addresses.includes(each.ipv4))!;
      const shown = await nodeExec(labName, near, ['tc', 'filter', 'show', 'dev', `weir${row.id}`, 'ingress']);
      const links = await nodeExec(labName, near, ['cat', `/sys/class/net/weir${row.id}/ifindex`]);
      const pins = await nodeExec(labName, near, ['ls', '/sys/fs/bpf/weir/links']);
      return {
        clsact: /\bweir\b/.test(shown.stdout),
        tcx: pins.stdout.split('\n').includes(`pod-${links.stdout.trim()}`),
      };
    };
    const upgraded = (name: string) =>
      waitFor(
        'the hook to be exchanged',
        async () => isDeepStrictEqual(await hooks(name), { clsact: false, tcx: true }),
        10_000,
      );
    for (const [name, killed] of [
      ['fresh', false],
      ['orphan', true],
    ] as const) {
      await scene.add({ node: near, name, labels: { app: 'client' } });
      const steady = traffic(name);
      if (killed) {
        await kill(near);
        await steady.more(100);
        await start(near);
      }
      await upgraded(name);
      await steady.more(100);
      await lossesOf(steady);
    }
  });

  test('an agent that is killed while it starts, twice, loses no packet', async () => {
    const steady = traffic();
    await steady.more(100);
    await kill(near);
    for (let i = 0; i < 2; i++) {
      await startAgent(labName, near);
      await steady.more(60); // some hundred milliseconds into its start
      await kill(near);
    }
    await start(near);
    await steady.more(200);
    await lossesOf(steady);
    assert.equal(await scene.probe('stranger', 'server-near', port), 'silent');
  });

  test('what went on while an agent was down is right when it is back', async () => {
    const leaving = await scene.add({ node: near, name: 'leaving', labels: { app: 'leaving' } });
    await scene.add({ node: near, name: 'changing', labels: { app: 'stranger' } });
    await scene.settled();
    assert.equal(await scene.probe('changing', 'server-near', 80), 'silent');
    assert.equal(await scene.probe('stranger', 'leaving', 80), 'ok');
    await kill(near);

    // DEL is written down, ADD is refused for now.
    await scene.remove('leaving');
    const queue = join(await stateDir(near), 'cni-deletes');
    assert.deepEqual(readdirSync(queue), [`${leaving.containerId}-eth0`]);
    await assert.rejects(addPod(lab.record, lab.api, { node: near, namespace: 'restart', name: 'early' }), /"code":11/);
    await lab.api.delete('/api/v1/namespaces/restart/pods/early', { gracePeriodSeconds: 0 });
    await nodeExec(labName, near, [
      'sh',
      '-c',
      'for n in $(ip netns list | cut -d" " -f1); do [ -z "$(ip -n $n -br link show type veth)" ] && ip netns delete $n; done',
    ]);
    // A policy goes, another comes, labels change, and a pod comes on the other node.
    await lab.kubectl(['delete', 'networkpolicy', '-n', 'restart', 'client']);
    await lab.apply([
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'no-strangers', namespace: 'restart' },
        spec: { podSelector: { matchLabels: { app: 'stranger' } }, policyTypes: ['Egress'] },
      },
    ]);
    await lab.kubectl(['label', 'pod', '-n', 'restart', 'changing', 'app=client', '--overwrite']);
    await scene.add({ node: far, name: 'newcomer', labels: { app: 'newcomer' } });
    assert.equal(await scene.probe('client', 'stranger', 80), 'silent', 'the kernel goes on with what it had');

    await start(near);
    await waitFor('the deletion to be done', async () => readdirSync(queue).length === 0, 10_000);
    await scene.settled();
    assert.ok(!(await ownEndpoints(near)).some((row) => row.pod === 'leaving'));
    assert.equal(await scene.probe('client', 'stranger', 80), 'ok', 'the policy of the client has gone');
    assert.equal(await scene.probe('stranger', 'newcomer', 80), 'silent', 'the new policy holds');
    assert.equal(await scene.probe('client', 'newcomer', 80), 'ok');
    assert.equal(await scene.probe('changing', 'server-near', 80), 'ok', 'its new labels count');
    assert.equal(await scene.probe('changing', 'server-far', 80), 'ok');
    await scene.add({ node: near, name: 'late', labels: { app: 'client' } });
    await scene.settled();
    assert.equal(await scene.probe('late', 'server-far', 80), 'ok');

    await scene.deletePolicy('no-strangers');
    for (const name of ['changing', 'newcomer', 'late']) await scene.remove(name);
    await scene.policy('client', {
      podSelector: { matchLabels: { app: 'client' } },
      policyTypes: ['Egress'],
      egress: [
        { to: [{ podSelector: { matchLabels: { app: 'server' } } }], ports: [{ port }, { port, protocol: 'UDP' }] },
      ],
    });
  });

  test('corrupt state files are set aside; nothing opens, and a pod whose file was one keeps its network', async () => {
    const victim = await scene.add({ node: near, name: 'victim', labels: { app: 'victim' } });
    await scene.settled();
    const folder = await stateDir(near);
    const rows = await ownEndpoints(near);
    const { id } = rows.find((row) => row.pod === 'victim')!;
    const counters = ['flow-counters.json', 'process-counters.json'];
    const files = ['numbers.json', 'resting-addresses.json', ...counters, `endpoints/${id}.json`];
    const steady = traffic();
    const doors = knockOnClosedDoors();
    await steady.more(100);
    await kill(near);
    for (const file of files) writeFileSync(join(folder, file), '{"half a');
    await start(near);
    await steady.more(300);
    assert.deepEqual(await doors.stop(), []);
    await lossesOf(steady);
    for (const file of files) assert.equal(readFileSync(join(folder, `${file}.corrupt`), 'utf8'), '{"half a', file);
    assert.deepEqual(await ownEndpoints(near), rows);
    assert.equal(await scene.probe('stranger', 'victim', 80), 'ok');
    assert.equal(await scene.probe('victim', 'server-near', port), 'silent', 'policy knows it as before');
    await callPlugin(labName, 'CHECK', victim);
    await scene.remove('victim');
    assert.ok(!(await ownEndpoints(near)).some((row) => row.pod === 'victim'));
    await nodeExec(labName, near, ['sh', '-c', 'rm -f /var/lib/weir/*.corrupt /var/lib/weir/endpoints/*.corrupt']);
  });

  test('without any of the state all pods keep their network', async () => {
    const rows = await ownEndpoints(near);
    const steady = traffic();
    const doors = knockOnClosedDoors();
    await steady.more(100);
    await kill(near);
    await nodeExec(labName, near, ['sh', '-c', 'rm -rf /var/lib/weir/*']);
    await start(near);
    await steady.more(300);
    assert.deepEqual(await doors.stop(), []);
    await lossesOf(steady);
    // Both ends of every connection keep the numbers by which the kernel's rows of policy know them.
    const { maps } = await lab.agent<Status>(near, '/v1/status');
    for (const { name, rows, adopted } of maps)
      if (name.startsWith('ipcache'))
        assert.deepEqual({ name, ...adopted }, { name, same: rows, changed: 0, added: 0, pruned: 0 });
    assert.deepEqual(await ownEndpoints(near), rows);
  });

  test('without the API server everything goes on, also over a restart, and the agent says so', async () => {
    const server = (await lab.status()).controlPlane.processes.find((each) => each.name === 'kube-apiserver')!.pid!;
    const steady = traffic();
    const doors = knockOnClosedDoors();
    await steady.more(100);
    process.kill(server, 'SIGSTOP');
    try {
      await waitFor(
        'the agent to notice',
        async () => {
          const { problems, apiServer } = await lab.agent<Status>(far, '/v1/status');
          return !apiServer.connected && problems.some((each) => /not following/.test(each));
        },
        30_000,
      );
      await kill(near);
      await startAgent(labName, near);
      await waitForAgent(labName, near);
      await steady.more(400);
      const { healthy, problems } = await lab.agent<Status>(near, '/v1/status');
      assert.equal(healthy, false);
      assert.ok(
        problems.some((each) => /not been read yet/.test(each)),
        problems.join('\n'),
      );
    } finally {
      process.kill(server, 'SIGCONT');
    }
    await waitFor(
      'the agents to recover',
      async () => {
        for (const node of nodeNames.bare) if (!(await lab.agent<Status>(node, '/v1/status')).healthy) return undefined;
        return true;
      },
      30_000,
    );
    await steady.more(200);
    assert.deepEqual(await doors.stop(), []);
    await lossesOf(steady);
    const late = await addPod(lab.record, lab.api, { node: near, namespace: 'restart', name: 'after-all' });
    await deletePod(lab.record, lab.api, late);
  });
});
