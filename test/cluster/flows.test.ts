// Every connection explains itself: who talked to whom, on which port, what became of it, and which policy and rule
// said so; for a default deny, which policies isolate. Read as users do, with the command line.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureLoad } from '../../bench/load/build.ts';
import { attempt, podCommand, podExec } from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { askSteadily, serveSteady } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const root = fileURLToPath(new URL('../..', import.meta.url));
const weir = join(root, 'bin/weir');
const [near, far] = nodeNames.bare;

interface Policy {
  kind: string;
  namespace: string;
  name: string;
  labels: string[];
}
interface End {
  namespace?: string;
  pod_name?: string;
  identity?: number;
  labels?: string[];
}
interface Flow {
  verdict: string;
  drop_reason_desc?: string;
  traffic_direction?: string;
  trace_reason?: string;
  is_reply?: boolean;
  source: End;
  destination: End;
  IP: { source: string; destination: string; ipVersion: string };
  l4?: { TCP?: { source_port: number; destination_port: number }; UDP?: { destination_port: number } };
  egress_allowed_by?: Policy[];
  ingress_allowed_by?: Policy[];
  egress_denied_by?: Policy[];
  ingress_denied_by?: Policy[];
}
interface FlowStatus {
  lostInKernel: number;
  heldBack: number;
  backlogBytes: number;
}
interface Line {
  flow?: Flow;
  lost_events?: { num_events_lost: string | number };
  node_name: string;
  time: string;
}

describe('flows', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;

  before(async () => {
    lab = await sharedLab();
    scene = await createScene(lab, 'flows');
    await scene.add({ node: near, name: 'client', labels: { app: 'client' } });
    await scene.add({ node: near, name: 'stranger', labels: { app: 'stranger' } });
    await scene.add({ node: near, name: 'server-near', labels: { app: 'server' } });
    await scene.add({ node: far, name: 'server-far', labels: { app: 'server' } });
    const server = { podSelector: { matchLabels: { app: 'server' } }, policyTypes: ['Ingress'] };
    await scene.policy('default-deny', { podSelector: {}, policyTypes: ['Ingress'] });
    await scene.policy('server-web', {
      ...server,
      ingress: [
        { from: [{ podSelector: { matchLabels: { app: 'nobody' } } }] },
        { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 80 }] },
      ],
    });
    await scene.policy('client-out', {
      podSelector: { matchLabels: { app: 'client' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ podSelector: { matchLabels: { app: 'server' } } }] }],
    });
  });
  after(async () => {
    await scene?.close();
  });

  async function observe(...args: string[]): Promise<Line[]> {
    const done = await attempt([weir, 'observe', '--context', labName, '-o', 'json', ...args]);
    assert.equal(done.status, 0, done.stderr);
    return done.stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Line);
  }
  const flowsOf = (lines: Line[]) => lines.flatMap((line) => line.flow ?? []);
  const names = (policies: Policy[] | undefined) =>
    (policies ?? []).map((each) => `${each.namespace}/${each.name}`).sort();
  const rules = (policies: Policy[] | undefined) =>
    (policies ?? []).flatMap((each) => each.labels.filter((label) => label.startsWith('weir:rule='))).sort();

  /** The first flow of this connection that `wanted` accepts, as soon as agents show it. */
  const found = (from: string, to: string, since: string, wanted: (flow: Flow) => boolean) =>
    waitFor(
      `a flow of ${from} to ${to}`,
      async () =>
        flowsOf(
          await observe('--since', since, '--from-pod', `flows/${from}`, '--to-pod', `flows/${to}`, '--all'),
        ).find(wanted),
      10_000,
      100,
    );
  const losses = async () => {
    const { lostInKernel, heldBack } = await lab.agent<FlowStatus>(near, '/v1/flow-status');
    return { lostInKernel, heldBack };
  };
  /** What the datapath itself has counted. */
  const lostEvents = async () =>
    (await lab.agent<{ counters: { events_lost: number } }>(near, '/v1/status')).counters.events_lost;
  const loadAllowed = {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ ports: [{ port: 81 }, { port: 81, protocol: 'UDP' }] }],
  };
  const now = () => new Date().toISOString();

  for (const server of ['server-near', 'server-far'] as const) {
    test(`an allowed connection to ${server} names both policies and the rules`, async () => {
      const since = now();
      assert.equal(await scene.probe('client', server, 80), 'ok');
      for (const ipVersion of ['IPv4', 'IPv6']) {
        const ours = (flow: Flow) => flow.verdict === 'FORWARDED' && flow.IP.ipVersion === ipVersion && !flow.is_reply;
        const out = await found(
          'client',
          server,
          since,
          (flow) => ours(flow) && (flow.egress_allowed_by?.length ?? 0) > 0,
        );
        assert.deepEqual(names(out.egress_allowed_by), ['flows/client-out']);
        assert.deepEqual(rules(out.egress_allowed_by), ['weir:rule=egress[0]']);
        const incoming = await found(
          'client',
          server,
          since,
          (flow) => ours(flow) && (flow.ingress_allowed_by?.length ?? 0) > 0,
        );
        assert.deepEqual(names(incoming.ingress_allowed_by), ['flows/server-web']);
        assert.deepEqual(rules(incoming.ingress_allowed_by), ['weir:rule=ingress[1]']);
        assert.equal(incoming.l4?.TCP?.destination_port, 80);
        assert.deepEqual([incoming.source.namespace, incoming.source.pod_name], ['flows', 'client']);
        assert.deepEqual([incoming.destination.namespace, incoming.destination.pod_name], ['flows', server]);
        assert.ok(incoming.source.labels?.includes('k8s:app=client'));
        assert.ok((incoming.destination.identity ?? 0) >= 256);
      }
    });

    test(`a connection to ${server} that a default deny refuses names the policies that isolate, and no rule`, async () => {
      const since = now();
      assert.equal(await scene.probe('stranger', server, 80), 'silent');
      assert.equal(await scene.probe('stranger', server, 53, 'udp'), 'silent');
      for (const protocol of ['TCP', 'UDP'] as const) {
        const denied = await found(
          'stranger',
          server,
          since,
          (flow) => flow.verdict === 'DROPPED' && flow.l4?.[protocol] !== undefined,
        );
        assert.deepEqual(names(denied.ingress_denied_by), ['flows/default-deny', 'flows/server-web']);
        assert.deepEqual(rules(denied.ingress_denied_by), []);
        assert.equal(denied.drop_reason_desc, 'POLICY_DENIED');
        assert.equal(denied.traffic_direction, 'INGRESS');
        assert.equal(denied.l4?.[protocol]?.destination_port, protocol === 'TCP' ? 80 : 53);
      }
    });
  }

  test('a connection that egress refuses says so at its source', async () => {
    const since = now();
    assert.equal(await scene.probe('client', 'stranger', 80), 'silent');
    const denied = await found('client', 'stranger', since, (flow) => flow.verdict === 'DROPPED');
    assert.equal(denied.traffic_direction, 'EGRESS');
    assert.deepEqual(names(denied.egress_denied_by), ['flows/client-out']);
  });

  test('filters show what they say and nothing else', async () => {
    const since = now();
    await scene.probe('client', 'server-far', 80);
    await scene.probe('stranger', 'server-far', 80);
    await found('stranger', 'server-far', since, () => true);
    await found('client', 'server-far', since, () => true);
    const base = ['--since', since, '--namespace', 'flows'];
    const both = flowsOf(await observe(...base, '--all'));
    assert.deepEqual([...new Set(both.map((flow) => flow.verdict))].sort(), ['DROPPED', 'FORWARDED']);
    const dropped = flowsOf(await observe(...base, '--all', '--verdict', 'dropped'));
    assert.ok(dropped.length > 0);
    assert.ok(dropped.every((flow) => flow.verdict === 'DROPPED'));
    const ofPod = flowsOf(await observe(...base, '--all', '--pod', 'flows/stranger'));
    assert.ok(ofPod.length > 0);
    assert.ok(ofPod.every((flow) => [flow.source.pod_name, flow.destination.pod_name].includes('stranger')));
    assert.equal(flowsOf(await observe(...base, '--last', '3')).length, 3);
    const six = flowsOf(await observe(...base, '--all', '--ip-version', '6'));
    assert.ok(six.length > 0 && six.every((flow) => flow.IP.ipVersion === 'IPv6'));
    const byPolicy = flowsOf(await observe(...base, '--all', '--policy', 'flows/default-deny'));
    assert.ok(byPolicy.length > 0);
    assert.ok(byPolicy.every((flow) => names(flow.ingress_denied_by).includes('flows/default-deny')));
    const wrong = await attempt([weir, 'observe', '--context', labName, '--verdict', 'perhaps']);
    assert.notEqual(wrong.status, 0);
    assert.match(wrong.stderr, /perhaps/);
  });

  test('under load every connection is shown', async () => {
    await scene.policy('server-load', loadAllowed);
    const server = await serveSteady(lab.record, scene.pod('server-near'), 81);
    const before = await losses();
    const since = now();
    const targets = Array(12).fill(scene.pod('server-near').ipv4) as string[];
    const command = [compileTool('steady'), 'ask', '81', '2', ...targets];
    const steady = askSteadily(podCommand(lab.record, scene.pod('client'), command));
    await steady.more(2_000);
    const { counts } = await steady.stop();
    server.close();
    assert.equal(counts.lost, 0);
    assert.deepEqual(await losses(), before);
    // A connection that was just being made when it ended is shown as well, so there may be a few more.
    const wanted = counts.new + targets.length;
    await waitFor(
      `${wanted} connections to be shown`,
      async () => {
        const args = ['--from-pod', 'flows/client', '--to-port', '81', '--protocol', 'tcp', '--direction', 'egress'];
        const flows = flowsOf(await observe('--since', since, ...args, '--policy', 'flows/client-out', '--all'));
        // Two of them may have had one port, one after the other.
        const seen = flows.filter((flow) => flow.trace_reason === 'NEW').length;
        if (seen < wanted) throw new Error(`${seen} are`);
        return true;
      },
      10_000,
      200,
    );
    await scene.deletePolicy('server-load');
  });

  test('events that nobody could read are counted to the last, and the stream says so', async () => {
    await scene.policy('server-load', loadAllowed);
    const load = ensureLoad(root);
    const pid = (await lab.status()).nodes.find((each) => each.name === near)!.agentPid!;
    const server = await serveSteady(lab.record, scene.pod('server-near'), 81);
    const before = { ...(await losses()), inKernel: await lostEvents() };
    const since = now();
    try {
      process.kill(pid, 'SIGSTOP');
      // More than the ring holds, however slow the machine is just now; of both families, so that ports last.
      for (let connections = 0; connections < 20_000; ) {
        for (const address of [scene.pod('server-near').ipv4, scene.pod('server-near').ipv6]) {
          const done = await podExec(lab.record, scene.pod('client'), [load, 'crr', address, '81', '8', '4']);
          const { count, errors } = JSON.parse(done.stdout) as { count: number; errors: number };
          assert.ok(count > 0);
          assert.equal(errors, 0, 'traffic does not notice');
          connections += count;
        }
      }
    } finally {
      process.kill(pid, 'SIGCONT');
      server.close();
    }
    await waitFor(
      'the ring to be read',
      async () => (await lab.agent<FlowStatus>(near, '/v1/flow-status')).backlogBytes === 0,
      10_000,
    );
    const inKernel = (await lostEvents()) - before.inKernel;
    assert.ok(inKernel > 0, 'the ring was full');
    await waitFor(
      'losses to be known',
      async () => (await losses()).lostInKernel - before.lostInKernel === inKernel,
      5_000,
    );
    const after = await losses();
    const told = (await observe('--node', near, '--since', since, '--all'))
      .map((line) => Number(line.lost_events?.num_events_lost ?? 0))
      .reduce((sum, each) => sum + each, 0);
    assert.equal(told, after.lostInKernel - before.lostInKernel + after.heldBack - before.heldBack);
    await scene.deletePolicy('server-load');
  });
});
