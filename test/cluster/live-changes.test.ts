// What changes while pods live: labels, namespaces' labels, policies, pods under the same name. Each change holds from
// the next packet on, for connections that are open as well, and nobody is anybody else in between.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podCommand } from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import { createScene, type Scene } from './scene.ts';
import { nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { askSteadily, type Steady, serveSteady } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const [near, far] = nodeNames.bare;
const port = 7000;
const appIs = (app: string) => ({ podSelector: { matchLabels: { app } } });

describe('live changes', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  const closing: (() => unknown)[] = [];

  before(async () => {
    lab = await sharedLab();
    scene = await createScene(lab, 'live', { 'live-peers': { team: 'red' } });
    await scene.add({ node: near, name: 'client', labels: { app: 'client' } });
    for (const [name, node] of [
      ['server-near', near],
      ['server-far', far],
    ] as const) {
      const server = await serveSteady(lab.record, await scene.add({ node, name, labels: { app: 'server' } }), port);
      closing.push(server.close);
    }
    await scene.add({ node: near, name: 'peer', namespace: 'live-peers', labels: { app: 'peer' } });
    await scene.settled();
  });
  after(async () => {
    for (const close of closing) await close();
    await scene?.close();
  });

  /** Polls until a probe in both families has this outcome; gives how long that took. */
  const becomes = async (from: string, to: string, outcome: string, at = 80) => {
    const started = performance.now();
    await waitFor(
      `${from} to ${to}:${at} to be ${outcome}`,
      async () => (await scene.probe(from, to, at)) === outcome,
      5_000,
      5,
    );
    return performance.now() - started;
  };
  const label = (pod: string, text: string) => lab.kubectl(['label', 'pod', '-n', 'live', pod, text, '--overwrite']);

  function traffic(to: string): Steady {
    const command = [compileTool('steady'), 'ask', String(port), '5', ...scene.pod(to).addresses];
    const steady = askSteadily(podCommand(lab.record, scene.pod('client'), command));
    closing.push(steady.stop);
    return steady;
  }

  for (const server of ['server-near', 'server-far']) {
    test(`labels change: verdicts change and an open connection to ${server} is cut, then freed`, async () => {
      await scene.policy('only-clients', {
        ...appIs('server'),
        policyTypes: ['Ingress'],
        ingress: [{ from: [appIs('client')] }],
      });
      const steady = traffic(server);
      await steady.more(100);
      await label('client', 'app=somebody');
      await becomes('client', server, 'silent');
      const cut = steady.counts();
      await waitFor('open connections to be cut', async () => steady.counts().lost >= cut.lost + 4, 5_000);
      const { kept, udp } = steady.counts();
      assert.equal(await scene.probe('client', server, 80), 'silent');
      assert.deepEqual([steady.counts().kept, steady.counts().udp], [kept, udp], 'nothing passes any more');
      await label('client', 'app=client');
      await becomes('client', server, 'ok');
      await steady.more(20);
      await steady.stop();
      await scene.deletePolicy('only-clients');
    });
  }

  test('labels of a namespace change: policies that select by them follow', async () => {
    await scene.policy('red-team', {
      ...appIs('server'),
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'red' } } }] }],
    });
    for (const server of ['server-near', 'server-far']) {
      assert.equal(await scene.probe('peer', server, 80), 'ok');
      assert.equal(await scene.probe('client', server, 80), 'silent');
    }
    await lab.kubectl(['label', 'namespace', 'live-peers', 'team=blue', '--overwrite']);
    for (const server of ['server-near', 'server-far']) await becomes('peer', server, 'silent');
    await lab.kubectl(['label', 'namespace', 'live', 'team=red']);
    for (const server of ['server-near', 'server-far']) await becomes('client', server, 'ok');
    await lab.kubectl(['label', 'namespace', 'live', 'team-']);
    await scene.deletePolicy('red-team');
  });

  test('a policy comes and goes: both count from the next packet on, open connections included', async () => {
    const steady = traffic('server-far');
    await steady.more(100);
    await scene.policy('closed', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    assert.equal(await scene.probe('client', 'server-far', 80), 'silent');
    assert.equal(await scene.probe('peer', 'server-near', 80), 'silent');
    const { kept, udp } = steady.counts();
    await waitFor('open connections to be cut', async () => steady.counts().lost >= 4, 5_000);
    assert.deepEqual([steady.counts().kept, steady.counts().udp], [kept, udp]);
    await scene.deletePolicy('closed');
    assert.equal(await scene.probe('client', 'server-far', 80), 'ok');
    assert.equal(await scene.probe('peer', 'server-near', 80), 'ok');
    await steady.more(20);
    await steady.stop();
  });

  test('a pod that is replaced under its name has its own address, identity and verdicts', async () => {
    await scene.policy('only-clients', {
      ...appIs('server'),
      policyTypes: ['Ingress'],
      ingress: [{ from: [appIs('client')] }],
    });
    for (const [labels, outcome] of [
      [{ app: 'client' }, 'ok'],
      [{ app: 'other' }, 'silent'],
      [{ app: 'client' }, 'ok'],
    ] as const) {
      const { addresses } = await scene.add({ node: near, name: 'again', labels });
      await scene.settled();
      for (const server of ['server-near', 'server-far'])
        assert.equal(await scene.probe('again', server, 80), outcome, `${labels.app} to ${server}`);
      await scene.remove('again');
      await waitFor(
        'the old address to be forgotten',
        async () => {
          const known = await lab.agent<{ address: string }[]>(far, '/v1/addresses');
          return !known.some((row) => addresses.includes(row.address));
        },
        5_000,
      );
    }
    await scene.deletePolicy('only-clients');
  });

  test('a named port is each pod’s own number', async () => {
    await scene.add({
      node: near,
      name: 'web-a',
      labels: { app: 'web' },
      ports: [{ name: 'web', containerPort: 80 }],
      servePorts: [80, 81],
    });
    await scene.add({
      node: far,
      name: 'web-b',
      labels: { app: 'web' },
      ports: [{ name: 'web', containerPort: 81 }],
      servePorts: [80, 81],
    });
    await scene.policy('web', { ...appIs('web'), policyTypes: ['Ingress'], ingress: [{ ports: [{ port: 'web' }] }] });
    await scene.policy('to-web', {
      ...appIs('client'),
      policyTypes: ['Egress'],
      egress: [{ ports: [{ port: 'web' }] }],
    });
    const outcomes: Record<string, string> = {};
    for (const pod of ['web-a', 'web-b'])
      for (const at of [80, 81]) outcomes[`${pod}:${at}`] = await scene.probe('client', pod, at);
    assert.deepEqual(outcomes, { 'web-a:80': 'ok', 'web-a:81': 'silent', 'web-b:80': 'silent', 'web-b:81': 'ok' });
    await scene.deletePolicy('to-web');
    assert.equal(await scene.probe('peer', 'web-b', 80), 'silent');
    assert.equal(await scene.probe('peer', 'web-b', 81), 'ok');
    for (const name of ['web-a', 'web-b']) await scene.remove(name);
    await scene.deletePolicy('web');
  });

  test('a new pod is never the world while its identity is on its way', async () => {
    // Whoever is outside the cluster may come in. A pod that were taken for the world even for one packet would, too.
    const everybodyOutside = [
      { ipBlock: { cidr: '0.0.0.0/0', except: ['10.244.0.0/16'] } },
      { ipBlock: { cidr: '::/0', except: ['fd00:10:244::/48'] } },
    ];
    await scene.policy('outside', {
      ...appIs('server'),
      policyTypes: ['Ingress'],
      ingress: [{ from: everybodyOutside }],
    });
    await scene.policy('to-outside', {
      ...appIs('client'),
      policyTypes: ['Egress'],
      egress: [{ to: everybodyOutside }],
    });
    const outcomes = new Set<string>();
    for (let i = 0; i < 6; i++) {
      // New labels each time: a new identity has to be made, and told to the other node.
      const name = `new-${i}`;
      const { addresses } = await scene.add({ node: near, name, labels: { app: 'new', number: String(i) } });
      const tries = [
        ...['server-near', 'server-far'].flatMap((server) => [
          scene.probe(name, server, 80),
          scene.probe(name, server, 80, 'udp'),
        ]),
        scene.probe('client', name, 80),
      ];
      for (const outcome of await Promise.all(tries)) outcomes.add(outcome);
      const known = await lab.agent<{ address: string; identity: number }[]>(far, '/v1/addresses');
      for (const row of known.filter((each) => addresses.includes(each.address)))
        assert.ok(row.identity >= 256, JSON.stringify(row));
    }
    assert.deepEqual([...outcomes], ['silent']);
    for (let i = 0; i < 6; i++) await scene.remove(`new-${i}`);
    for (const name of ['outside', 'to-outside']) await scene.deletePolicy(name);
  });

  test('a pod that was just added reaches a pod of the other node, under policy', async () => {
    await scene.policy('only-fresh', {
      ...appIs('server'),
      policyTypes: ['Ingress'],
      ingress: [{ from: [appIs('fresh')] }],
    });
    await scene.add({ node: near, name: 'fresh', labels: { app: 'fresh' } });
    await becomes('fresh', 'server-far', 'ok');
    await scene.remove('fresh');
    await scene.deletePolicy('only-fresh');
  });
});
