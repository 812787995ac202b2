// The stock command line for flows reads an agent's socket as it reads that of its own project. It is built from its
// pinned module when this test first runs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import {
  attempt,
  buildFlowClient,
  type LabStatus,
  startAgent,
  stopAgent,
  terminalProgress,
  waitForAgent,
} from '../../lab/lab.ts';
import { errorText } from '../../src/core/errors.ts';
import { createScene, type Scene } from './scene.ts';
import { nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

interface Flow {
  uuid: string;
  time: string;
  verdict: string;
  drop_reason_desc?: string;
  source: { pod_name?: string; workloads?: { kind: string; name: string }[] };
  destination: { pod_name?: string };
  IP: { source: string; destination: string; ipVersion: string };
  l4?: { TCP?: { destination_port: number }; UDP?: { destination_port: number } };
  ingress_denied_by?: { name: string }[];
  extensions?: { value: { report?: string } };
}

let client = '';
const skip =
  process.getuid?.() === 0
    ? await buildFlowClient(terminalProgress()).then(
        (path) => {
          client = path;
          return false;
        },
        (error) => `the stock client could not be built here: ${errorText(error)}`,
      )
    : 'needs root';
const [near, far] = nodeNames.bare;

describe('the stock client', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  let server = '';

  before(async () => {
    lab = await sharedLab();
    server = `unix://${(await lab.status()).nodes.find((node) => node.name === near)!.sockets.hubble}`;
    scene = await createScene(lab, 'client');
    await scene.add({ node: near, name: 'asker', labels: { app: 'asker' } });
    await scene.add({ node: near, name: 'stranger', labels: { app: 'stranger' } });
    await scene.add({ node: near, name: 'server', labels: { app: 'server' }, servePorts: [53, 80, 81] });
    await scene.add({ node: far, name: 'away', labels: { app: 'asker' } });
    await scene.policy('server-askers', {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'asker' } } }] }],
    });
    for (const port of [80, 81]) assert.equal(await scene.probe('asker', 'server', port), 'ok');
    assert.equal(await scene.probe('away', 'server', 80), 'ok');
    assert.equal(await scene.probe('asker', 'server', 53, 'udp'), 'ok');
    assert.equal(await scene.probe('stranger', 'server', 80), 'silent');
    await waitFor(
      'the denial to be shown',
      async () => (await flows('--namespace', 'client', '--verdict', 'DROPPED', '--all')).length > 0 || undefined,
      10_000,
    );
  });
  after(async () => {
    await scene?.close();
  });

  async function hubble(...args: string[]): Promise<string> {
    const done = await attempt([client, ...args, '--server', server]);
    assert.equal(done.status, 0, `${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  }
  async function flows(...args: string[]): Promise<Flow[]> {
    return (await hubble('observe', ...args, '-o', 'json'))
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { flow?: Flow }).flow ?? []);
  }

  test('knows the server by status, nodes, namespaces and what the agent did', async () => {
    assert.match(await hubble('status'), /Ok[\s\S]*Connected Nodes: 1\/1/);
    assert.match(await hubble('list', 'nodes'), new RegExp(`${near} +Connected`));
    assert.match(await hubble('list', 'namespaces'), /^client$/m);
    assert.match(await hubble('observe', 'agent-events', '--last', '50'), /POLICY_UPDATED/);
  });

  test('prints flows in each of its formats', async () => {
    const only = [
      'observe',
      '--namespace',
      'client',
      '--verdict',
      'DROPPED',
      '--last',
      '1',
      '--time-format',
      'RFC3339',
    ];
    const line =
      /client\/stranger:\d+ \(ID:\d+\) <> client\/server:80 \(ID:\d+\) Policy denied DROPPED \(TCP Flags: SYN\)/;
    assert.match(await hubble(...only), line);
    assert.match(await hubble(...only, '-o', 'compact'), line);
    assert.match(await hubble(...only, '-o', 'dict'), /SOURCE: client\/stranger:[\s\S]*VERDICT: DROPPED/);
    assert.match(await hubble(...only, '-o', 'tab'), /client\/stranger:\d+ +client\/server:80 +Policy denied +DROPPED/);
    const [denied] = await flows(...only.slice(1));
    assert.equal(denied?.drop_reason_desc, 'POLICY_DENIED');
    assert.deepEqual(
      denied?.ingress_denied_by?.map((each) => each.name),
      ['server-askers'],
    );
  });

  test('shows reports with what went over the connection, and the workload of a pod of another node', async () => {
    const ended = await waitFor(
      'a connection from the other node to be over',
      async () =>
        (await flows('--from-pod', 'client/away', '--all')).find((flow) => flow.extensions?.value.report === 'end'),
      30_000,
    );
    assert.deepEqual(ended.source.workloads, [{ name: 'away', kind: 'Pod' }]);
  });

  test('narrows with its filters, and turns them round', async () => {
    const all = await flows('--namespace', 'client', '--all');
    const { ipv4 } = scene.pod('asker');
    const cases: [string[], (flow: Flow) => boolean][] = [
      [
        ['--pod', 'client/stranger'],
        ({ source, destination }) => [source, destination].some((end) => end.pod_name === 'stranger'),
      ],
      [['--to-pod', 'client/server', '--from-pod', 'client/away'], ({ source }) => source.pod_name === 'away'],
      [['--verdict', 'DROPPED'], (flow) => flow.verdict === 'DROPPED'],
      [['--drop-reason-desc', 'POLICY_DENIED'], (flow) => flow.drop_reason_desc === 'POLICY_DENIED'],
      [['--ip', ipv4], ({ IP }) => [IP.source, IP.destination].includes(ipv4)],
      [['--ip', `${ipv4}/32`], ({ IP }) => [IP.source, IP.destination].includes(ipv4)],
      [['-6'], ({ IP }) => IP.ipVersion === 'IPv6'],
      [['--port', '81'], ({ l4 }) => l4?.TCP?.destination_port === 81],
      [['--to-port', '53'], ({ l4 }) => l4?.UDP?.destination_port === 53],
      [['--protocol', 'udp'], ({ l4 }) => l4?.UDP !== undefined],
      [['--label', 'app=stranger'], ({ source }) => source.pod_name === 'stranger'],
      [['--type', 'drop'], (flow) => flow.verdict === 'DROPPED'],
      [['--workload', 'Pod/away'], ({ source }) => source.pod_name === 'away'],
      [['--not', '--protocol', 'tcp'], ({ l4 }) => l4?.TCP === undefined],
      [['--uuid', all[0]!.uuid], ({ uuid }) => uuid === all[0]!.uuid],
    ];
    for (const [args, wanted] of cases) {
      // It does not take a namespace and one of these.
      const base = /pod$|ip$/.test(args[0]!) ? [] : ['--namespace', 'client'];
      const shown = await flows(...base, '--all', ...args);
      assert.ok(shown.length > 0 && shown.every(wanted), `${args.join(' ')}: ${shown.length} flows`);
      const known = new Set(all.map((flow) => flow.uuid));
      assert.deepEqual(
        shown.filter((flow) => known.has(flow.uuid)).map((flow) => flow.uuid),
        all.filter(wanted).map((flow) => flow.uuid),
        args.join(' '),
      );
    }
    assert.equal((await flows('--namespace', 'client', '--last', '3')).length, 3);
    assert.deepEqual(
      (await flows('--namespace', 'client', '--first', '2')).map((flow) => flow.uuid),
      all.slice(0, 2).map((flow) => flow.uuid),
    );
    const [{ time }] = all as [Flow];
    assert.equal((await flows('--namespace', 'client', '--since', time, '--until', time))[0]?.uuid, all[0]!.uuid);
    assert.deepEqual(await flows('--namespace', 'client', '--since', '2100-01-01T00:00:00Z'), []);
  });

  test('is told by name which filter cannot be understood', async () => {
    const refused = await attempt([client, 'observe', '--server', server, '--cel-expression', '1 +']);
    assert.notEqual(refused.status, 0);
    assert.match(refused.stderr, /cel_expression/);
  });

  test('narrows with what no flow has, and with expressions', async () => {
    assert.deepEqual(await flows('--all', '--http-status', '404'), []);
    const denied = await flows('--all', '--cel-expression', '_flow.source.pod_name == "stranger"');
    assert.ok(denied.length > 0 && denied.every(({ source }) => source.pod_name === 'stranger'));
  });

  test('follows what comes', async () => {
    const args = ['observe', '--server', server, '--follow', '--pod', 'client/stranger', '-o', 'json'];
    const child = spawn(client, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part) => (text += part));
    try {
      // Its request may come after the first packets.
      await waitFor(
        'a line',
        async () => {
          await scene.probe('stranger', 'server', 81);
          return text.includes('\n') || undefined;
        },
        20_000,
      );
    } finally {
      child.kill();
    }
    const { flow } = JSON.parse(text.split('\n')[0]!) as { flow: Flow };
    assert.deepEqual([flow.source.pod_name, flow.verdict], ['stranger', 'DROPPED']);
  });

  describe('over the relay, with certificates of both sides', () => {
    let relay: LabStatus['relay'];
    let tls: string[] = [];

    /** The client in the network of the control plane, where the relay's port is. */
    async function throughRelay(args: readonly string[], more: readonly string[] = tls) {
      const { netns } = (await lab.status()).controlPlane;
      return attempt([
        ...['nsenter', `--net=${netns}`, '--', client, ...args],
        ...['--server', `tls://${relay.addresses[0]}`, ...more],
      ]);
    }
    async function relayFlows(...args: string[]): Promise<(Flow & { node_name: string })[]> {
      const done = await throughRelay(['observe', ...args, '-o', 'json']);
      assert.equal(done.status, 0, done.stderr);
      return done.stdout
        .split('\n')
        .filter(Boolean)
        .flatMap((line) => (JSON.parse(line) as { flow?: Flow & { node_name: string } }).flow ?? []);
    }

    before(async () => {
      ({ relay } = await lab.status());
      tls = [
        ...['--tls-ca-cert-files', relay.caFile, '--tls-server-name', relay.serverName],
        ...['--tls-client-cert-file', relay.clientCertFile, '--tls-client-key-file', relay.clientKeyFile],
      ];
      await waitFor(
        'the relay to reach all nodes',
        async () => /Connected Nodes: (\d+)\/\1/.test((await throughRelay(['status'])).stdout) || undefined,
        20_000,
      );
    });

    test('shows flows of all nodes in order of time, and exactly so many of the last and the first', async () => {
      const all = await relayFlows('--namespace', 'client', '--all');
      assert.deepEqual([...new Set(all.map((flow) => flow.node_name))].sort(), [near, far]);
      const times = all.map((flow) => flow.time);
      // Of one node flows may be out of order by as much as its processors are apart.
      assert.ok(times.every((time, i) => i === 0 || Date.parse(time) >= Date.parse(times[i - 1]!) - 100));
      const until = times.at(-1)!;
      const last = await relayFlows('--namespace', 'client', '--last', '5', '--until', until);
      assert.equal(last.length, 5);
      assert.deepEqual(
        (await relayFlows('--namespace', 'client', '--first', '5')).map((flow) => flow.uuid),
        all.slice(0, 5).map((flow) => flow.uuid),
      );
    });

    test('is told of nodes and namespaces', async () => {
      const nodes = (await throughRelay(['list', 'nodes'])).stdout;
      for (const node of [near, far]) assert.match(nodes, new RegExp(`${node} +Connected`));
      assert.match((await throughRelay(['list', 'namespaces'])).stdout, /^client$/m);
    });

    test('is not let in without a certificate, nor with one of the agents’ authority, nor in the clear', async () => {
      const [caOnly, { clientCertFile, caFile }] = [tls.slice(0, 4), relay];
      const node = clientCertFile.replace(/client-[^/]*\.crt$/, near);
      for (const wrong of [
        caOnly,
        [...caOnly, '--tls-client-cert-file', `${node}.crt`, '--tls-client-key-file', `${node}.key`],
        ['--tls-ca-cert-files', caFile.replace(/flows\/ca.crt$/, 'ca.crt'), ...tls.slice(2)],
      ])
        assert.notEqual((await throughRelay(['status'], wrong)).status, 0, wrong.join(' '));
      // A user's certificate opens the relay, and no agent past it.
      const { netns } = (await lab.status()).controlPlane;
      const address = (await lab.status()).nodes.find((each) => each.name === near)!.addresses[0]!;
      const at = `tls://${address.includes(':') ? `[${address}]` : address}:4244`;
      const past = [...tls, '--tls-server-name', `${near}.default.flows.weir.dev`];
      assert.notEqual(
        (await attempt(['nsenter', `--net=${netns}`, '--', client, 'status', '--server', at, ...past])).status,
        0,
      );
    });

    test('goes on while a node’s agent is away, and has its flows again when it is back', async () => {
      const child = spawn(
        'bin/weir',
        ['observe', '--server', `unix:${relay.socket}`, '-f', '-o', 'json', '--pod', 'client/away'],
        {
          stdio: ['ignore', 'pipe', 'ignore'],
        },
      );
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (part) => (text += part));
      const seen = (what: RegExp) => what.test(text) || undefined;
      try {
        await waitFor('the nodes', async () => seen(/NODE_CONNECTED/), 20_000);
        await stopAgent(lab.record.name, far!, 'ask');
        await waitFor('the loss', async () => seen(/NODE_UNAVAILABLE.*node4/), 20_000);
        assert.match((await throughRelay(['status'])).stdout, /Unavailable Nodes|Connected Nodes: 3\/4/);
        await startAgent(lab.record.name, far!);
        await waitForAgent(lab.record.name, far!);
        await waitFor(
          'its return',
          async () => seen(/NODE_CONNECTED[^\n]*node4[\s\S]*NODE_UNAVAILABLE[\s\S]*NODE_CONNECTED[^\n]*node4/),
          40_000,
        );
        await waitFor(
          'a flow of it',
          async () => {
            await scene.probe('away', 'server', 80);
            return seen(/"node_name":"node4"[^\n]*"pod_name":"away"|"pod_name":"away"[^\n]*"node_name":"node4"/);
          },
          20_000,
        );
      } finally {
        child.kill();
      }
    });
  });
});
