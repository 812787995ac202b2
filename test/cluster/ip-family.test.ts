// Clusters of one family: pods have addresses of it alone, reach each other and the world, and policy holds.
import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { describe, test } from 'node:test';
import { downLab, upLab } from '../../lab/lab.ts';
import { createScene, type Scene } from './scene.ts';
import { openLab, type SharedLab } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const nodes = ['node1', 'node2'];

describe('clusters of one family', { skip }, () => {
  for (const [ipFamily, world] of [
    ['v4', '198.51.100.1'],
    ['v6', '2001:db8:100::1'],
  ] as const) {
    test(`IP${ipFamily} alone: connections, policy, the world`, async () => {
      const name = `test-${ipFamily}`;
      await downLab(name);
      // A block of five addresses for pods of each node, so that one can be filled.
      const operatorOptions = ipFamily === 'v4' ? ['--node-mask-v4=29'] : [];
      await upLab({ name, nodes: 0, kubeletless: nodes.length, ipFamily, operatorOptions });
      try {
        const lab = await openLab(name);
        const scene = await createScene(lab, 'family', {}, nodes);
        for (const [pod, node] of [
          ['a', 'node1'],
          ['b', 'node1'],
          ['c', 'node2'],
        ] as const) {
          const { addresses, cniResult } = await scene.add({ node, name: pod, labels: { app: pod } });
          assert.deepEqual(addresses.map(isIPv6), [ipFamily === 'v6']);
          assert.equal((cniResult.routes as unknown[]).length, 1);
        }
        await scene.settled();
        for (const [from, to] of ['ab', 'ac', 'ba', 'bc', 'ca', 'cb'].map((pair) => [pair[0]!, pair[1]!] as const))
          for (const protocol of ['tcp', 'udp'] as const)
            assert.equal(await scene.probe(from, to, 80, protocol), 'ok', `${protocol} ${from} to ${to}`);
        // Nobody listens there, and says so: the way there and back is open.
        assert.equal(await scene.pod('a').prober.probe('tcp', world, 81, 1_000), 'refused');

        await scene.policy('b-and-c', {
          podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['b', 'c'] }] },
          policyTypes: ['Ingress'],
          ingress: [{ from: [{ podSelector: { matchLabels: { app: 'a' } } }] }],
        });
        await scene.policy('a', {
          podSelector: { matchLabels: { app: 'a' } },
          policyTypes: ['Egress'],
          egress: [{ to: [{ podSelector: {} }] }],
        });
        for (const [from, to, outcome] of [
          ['a', 'b', 'ok'],
          ['a', 'c', 'ok'],
          ['b', 'c', 'silent'],
          ['c', 'b', 'silent'],
          ['b', 'a', 'ok'],
        ] as const)
          assert.equal(await scene.probe(from, to, 80), outcome, `${from} to ${to}`);
        assert.equal(await scene.pod('a').prober.probe('tcp', world, 81, 250), 'silent');
        assert.equal(await scene.pod('b').prober.probe('tcp', world, 81, 1_000), 'refused');
        for (const node of nodes) {
          const { problems, maps } = await lab.agent<{ problems: string[]; maps: { failing: unknown[] }[] }>(
            node,
            '/v1/status',
          );
          assert.deepEqual(problems, []);
          assert.ok(maps.every((map) => map.failing.length === 0));
        }
        if (ipFamily === 'v4') await fillBlock(lab, scene);
        for (const pod of scene.pods.values()) pod.prober.close();
        lab.api.close();
      } finally {
        await downLab(name);
      }
    });
  }
});

/** The last address can be had; after that ADD is refused, the agent says so, and what runs goes on. */
async function fillBlock(lab: SharedLab, scene: Scene): Promise<void> {
  const problems = async () => (await lab.agent<{ problems: string[] }>('node1', '/v1/health')).problems;
  for (const name of ['d', 'e']) await scene.add({ node: 'node1', name });
  assert.deepEqual(await problems(), []);
  await scene.add({ node: 'node1', name: 'f' });
  assert.match((await problems()).join(), /IPAM_EXHAUSTED: no address is left in 10\.244\./);
  await assert.rejects(scene.add({ node: 'node1', name: 'h' }), /"code":101.*IPAM_EXHAUSTED/);
  await scene.remove('f');
  assert.deepEqual(await problems(), []);
  await assert.rejects(scene.add({ node: 'node1', name: 'i' }), /4 used, 1 resting, of 5/, 'a freed address rests');
  await scene.add({ node: 'node2', name: 'j' });
  assert.equal(await scene.probe('a', 'b', 80), 'ok');
}
