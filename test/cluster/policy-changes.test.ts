// No order of events opens what was closed before: one policy in another's place, new pods, agents that die.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { nodeExec, stopAgent } from '../../lab/lab.ts';
import { admin, cilium, is, languageScene, namespace, near, port, skip, staged } from './language-scene.ts';
import { isCutAndFreed } from './policy-scene.ts';
import type { Scene } from './scene.ts';
import { labName, nodeNames, waitFor } from './shared-lab.ts';

describe('changes of policies', { skip }, () => {
  const at = languageScene();

  describe('one policy in another’s place', () => {
    const fromClient = { endpointSelector: is('server'), ingress: [{ fromEndpoints: [is('client')] }] };

    test('neither opens a gap nor closes what both allow, under a stream of connections', async () => {
      await at.policies.enforce(cilium('old', fromClient));
      const steady = at.open(['server-near', 'server-far'].flatMap((name) => at.scene.pod(name).addresses));
      const knocking = { stop: false, passed: 0, tried: 0 };
      const knock = (async () => {
        while (!knocking.stop) {
          const { addresses } = at.scene.pod('server-far');
          const tries = addresses.map((address) => at.scene.pod('peer').prober.probe('tcp', address, 80, 250));
          for (const outcome of await Promise.all(tries)) {
            knocking.tried++;
            if (outcome === 'ok') knocking.passed++;
          }
        }
      })();
      await steady.more(20);
      for (let i = 0; i < 10; i++) {
        const [next, last] = [`version-${i}`, i === 0 ? 'old' : `version-${i - 1}`];
        const spec =
          i % 2 === 0
            ? {
                ...fromClient,
                ingress: [
                  { fromEndpoints: [is('client')], toPorts: [{ ports: [{ port: String(port), protocol: 'ANY' }] }] },
                ],
              }
            : fromClient;
        await at.policies.enforce(cilium(next, spec));
        await at.policies.remove(cilium(last, {}));
        await steady.more(3);
      }
      knocking.stop = true;
      await knock;
      const { counts, losses } = await steady.stop();
      assert.equal(counts.lost, 0, losses);
      assert.equal(knocking.passed, 0, `of ${knocking.tried}`);
      assert.ok(knocking.tried >= 20, `${knocking.tried} tries`);
    });

    test('staged and enforced in turn', async () => {
      const deny = { endpointSelector: is('server'), ingressDeny: [{ fromEndpoints: [is('client')] }] };
      const trial = cilium('trial', deny, { annotations: staged });
      await at.policies.enforce(trial);
      await isCutAndFreed('traffic', at.open(at.scene.pod('server-far').addresses), {
        cut: () =>
          at.policies
            .put({ ...trial, annotations: {} })
            .then(() =>
              at.lab.kubectl([
                'annotate',
                'cnp.cilium.io',
                '-n',
                namespace,
                'trial',
                'weir.dev/enforcement=enforced',
                '--overwrite',
              ]),
            ),
        free: () =>
          at.lab.kubectl([
            'annotate',
            'cnp.cilium.io',
            '-n',
            namespace,
            'trial',
            'weir.dev/enforcement=staged',
            '--overwrite',
          ]),
      });
    });

    test('an administrator’s Accept becomes Deny, and Accept again', async () => {
      await at.policies.enforce(cilium('closed', { endpointSelector: is('server'), ingress: [{}] }));
      const rule = (action: string) => admin('language-admin', { ingress: [{ action, from: [{ namespaces: {} }] }] });
      await at.policies.enforce(rule('Accept'));
      await isCutAndFreed('traffic', at.open(at.scene.pod('server-far').addresses), {
        cut: () => at.policies.put(rule('Deny')),
        free: () => at.policies.put(rule('Accept')),
      });
    });
  });

  describe('a new pod', () => {
    const deny = (name: string, app: string, spec: object = { egressDeny: [{ toEntities: ['all'] }] }) =>
      cilium(name, { endpointSelector: is(app), ...spec });

    test('sends nothing against a policy that was acknowledged before it was made', async () => {
      const outcomes = new Set<string>();
      for (let round = 0; round < 8; round++) {
        const name = `fenced-${round}`;
        // The name stands for another policy, which allows, until a moment ago.
        await at.policies.enforce(deny('fence', name, { egress: [{ toEntities: ['all'] }] }));
        await at.lab.api.delete(at.policies.path(deny('fence', name)));
        const stopped = round % 2 === 0;
        const pid = (await at.lab.status()).nodes.find((each) => each.name === near)!.agentPid!;
        if (stopped) process.kill(pid, 'SIGSTOP');
        let adding: ReturnType<Scene['add']>;
        try {
          await at.lab.apply([at.policies.manifest(deny('fence', name))]);
          adding = at.scene.add({ node: near, name, labels: { app: name } });
        } finally {
          if (stopped) setTimeout(() => process.kill(pid, 'SIGCONT'), 30 * round);
        }
        await adding;
        for (const server of ['server-near', 'server-far']) outcomes.add(await at.scene.probe(name, server, 80));
        await at.scene.remove(name);
      }
      assert.deepEqual([...outcomes], ['silent']);
    });

    test('is told to try again while the API server cannot be reached, and nothing of it is left', async () => {
      const before = await at.lab.agent<{ pod: string }[]>(near, '/v1/endpoints');
      const links = async () =>
        (await nodeExec(labName, near, ['ip', '-br', 'link'])).stdout.match(/^weir\d+/gm)?.length;
      const had = await links();
      const route = (verb: string) => nodeExec(labName, near, ['ip', 'route', verb, 'blackhole', '10.77.0.1/32']);
      await route('add');
      try {
        await assert.rejects(at.scene.add({ node: near, name: 'too-early', labels: { app: 'early' } }), /"code": ?11/);
      } finally {
        await route('delete');
      }
      const after = await at.lab.agent<{ pod: string }[]>(near, '/v1/endpoints');
      assert.deepEqual(after.map((row) => row.pod).sort(), before.map((row) => row.pod).sort());
      await waitFor('the device to be gone', async () => (await links()) === had, 5_000);
      await at.lab.api.delete(`/api/v1/namespaces/${namespace}/pods/too-early`, { gracePeriodSeconds: 0 });
      await waitFor(
        'the agent to hear again',
        async () => (await at.lab.agent<{ apiServer: { connected: boolean } }>(near, '/v1/status')).apiServer.connected,
        60_000,
      );
    });
  });

  describe('agents that die', () => {
    const deny = cilium('deny', { endpointSelector: is('server'), ingressDeny: [{ fromEndpoints: [is('client')] }] });

    test('in the middle of changes: what is in the kernel afterwards is what the API server has', async () => {
      for (let round = 0; round < 2; round++) {
        await Promise.all([
          at.policies.put(deny),
          ...nodeNames.bare.map((node) => stopAgent(labName, node, 'kill')),
          at.policies.put(
            cilium(`also-${round}`, { endpointSelector: is('server'), ingress: [{ fromEntities: ['all'] }] }),
          ),
        ]);
        await Promise.all(nodeNames.bare.map((node) => at.restart(node)));
        for (const server of ['server-near', 'server-far']) await at.becomes('client', server, 'silent');
        await Promise.all(nodeNames.bare.map((node) => stopAgent(labName, node, 'kill')));
        await at.lab.api.delete(at.policies.path(deny));
        assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent', 'without an agent nothing opens');
        await Promise.all(nodeNames.bare.map((node) => at.restart(node)));
        for (const server of ['server-near', 'server-far']) await at.becomes('client', server, 'ok');
      }
    });
  });
});
