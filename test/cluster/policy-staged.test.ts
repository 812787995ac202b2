// Policies that are tried before they bite, and whom they would hit.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { attempt, stopAgent } from '../../lab/lab.ts';
import { cilium, is, languageScene, namespace, near, skip, staged, weir } from './language-scene.ts';
import { labName, waitFor } from './shared-lab.ts';

interface ImpactRow {
  effect: string;
  from: string;
  to: string;
  port: string;
  connections: number;
}

describe('policies that are staged', { skip }, () => {
  const at = languageScene();
  const deny = cilium('trial', { endpointSelector: is('server'), ingressDeny: [{ fromEndpoints: [is('client')] }] });
  const now = () => new Date().toISOString();
  const wouldDeny = async (from = 'client') => {
    const since = now();
    assert.equal(await at.scene.probe(from, 'server-near', 80), 'ok');
    await at.flowFrom(from, 'server-near', since, (flow) =>
      /staged policies would deny ingress/.test(flow.Summary ?? ''),
    );
  };

  test('by the policy: never enforced, in every flow, after a restart too', async () => {
    await at.policies.enforce({ ...deny, annotations: staged });
    const steady = at.open(at.scene.pod('server-near').addresses);
    await steady.more(20);
    await wouldDeny();
    await stopAgent(labName, near, 'kill');
    await steady.more(20);
    await at.restart(near);
    await wouldDeny();
    const { counts, losses } = await steady.stop();
    assert.equal(counts.lost, 0, losses);
  });

  test('by the namespace, which a policy may override', async () => {
    await at.lab.kubectl(['annotate', 'namespace', namespace, 'weir.dev/enforcement=staged']);
    try {
      await at.policies.enforce(deny);
      await at.becomes('client', 'server-near', 'ok');
      await wouldDeny();
      await at.conditionsBecome(deny, { Enforced: 'False Staged' });
      await at.policies.put({ ...deny, annotations: { 'weir.dev/enforcement': 'enforced' } });
      await at.becomes('client', 'server-near', 'silent');
    } finally {
      await at.lab.kubectl(['annotate', 'namespace', namespace, 'weir.dev/enforcement-']);
    }
    await at.lab.kubectl(['annotate', 'cnp.cilium.io', '-n', namespace, 'trial', 'weir.dev/enforcement-']);
    await at.becomes('client', 'server-far', 'silent');
    await at.conditionsBecome(deny, { Enforced: 'True Enforced' });
  });

  test('by the flag of the agent', async () => {
    await at.policies.enforce(deny);
    assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent');
    await stopAgent(labName, near, 'ask');
    try {
      await at.restart(near, ['--policy-enforcement', 'staged']);
      await at.becomes('client', 'server-near', 'ok');
      await wouldDeny();
    } finally {
      await stopAgent(labName, near, 'ask');
      await at.restart(near);
    }
    await at.becomes('client', 'server-near', 'silent');
  });

  test('`weir policy impact` sums up whom it would cut off and let in, by the connections that there were', async () => {
    const impact = async (policy: string, ...args: string[]) => {
      const done = await attempt([weir, 'policy', 'impact', policy, '--context', labName, '--since', began, ...args]);
      assert.equal(done.status, 0, done.stderr);
      return done.stdout;
    };
    const rowsOf = async (policy: string) => {
      const { rows } = JSON.parse(await impact(policy, '-o', 'json')) as { rows: ImpactRow[] };
      return rows.filter(({ to }) => to.includes('server-near'));
    };
    const only = cilium('trial', { ...deny.spec, enableDefaultDeny: { ingress: false } });
    let began = now();
    await at.policies.enforce({ ...only, annotations: staged });
    for (let i = 0; i < 3; i++) assert.equal(await at.scene.probe('client', 'server-near', 80), 'ok');
    assert.equal(await at.scene.probe('peer', 'server-near', 80), 'ok');
    const cut = await waitFor(
      'the nodes to have seen the connections',
      async () => {
        const rows = await rowsOf(`${namespace}/trial`);
        return rows.length > 0 && rows[0]!.connections >= 3 ? rows : undefined;
      },
      10_000,
      200,
    );
    // Both families, and nobody else.
    for (const row of cut) {
      const { effect, from, port } = row;
      assert.deepEqual([effect, /client/.test(from), port], ['cut off', true, '80/TCP'], JSON.stringify(row));
    }
    assert.match(
      await impact(`${namespace}/trial`),
      /cut off .*client.*server-near.* of \d+ connections seen would be otherwise/s,
    );

    await at.policies.enforce({ ...only, annotations: { 'weir.dev/enforcement': 'enforced' } });
    await at.becomes('client', 'server-near', 'silent');
    began = now();
    assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent');
    const file = join(mkdtempSync(join(tmpdir(), 'weir-impact-')), 'policy.json');
    writeFileSync(
      file,
      JSON.stringify(
        at.policies.manifest(cilium('trial', { endpointSelector: is('server'), ingress: [{ fromEntities: ['all'] }] })),
      ),
    );
    const letIn = await waitFor(
      'the nodes to have seen what was denied',
      async () => (await rowsOf(file)).find((row) => row.effect === 'let in'),
      10_000,
      200,
    );
    assert.ok(letIn.from.includes('client'), letIn.from);
    rmSync(dirname(file), { recursive: true });
  });
});
