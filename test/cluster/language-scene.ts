// What tests of the language of policy share: four pods with servers, servers outside and on a node, and ways to know what
// became of a policy. Each file of tests makes it for itself, in the shared lab.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before } from 'node:test';
import { attempt, inNode, kubectl, startAgent, waitForAgent, worldCommand } from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import { createPolicies, type Policies, traffic, type Written } from './policy-scene.ts';
import { type Prober, startProber } from './prober.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { serveSteady, startServer } from './steady.ts';

export const skip = process.getuid?.() === 0 ? false : 'needs root';
export const weir = join(import.meta.dirname, '../../bin/weir');
export const [near, far] = nodeNames.bare;
export const everyNode = [...nodeNames.real, ...nodeNames.bare];
/** Of each file its own: the one before may still be going. */
export const namespace = `language-${process.pid}`;
export const peersNamespace = `${namespace}-peers`;
export const port = 7000;
/** Of the host outside. Its server of datagrams answers from the first. */
export const outside = { one: ['10.77.0.2', 'fd77::2'], two: ['198.51.100.2', '2001:db8:100::2'] } as const;
export const is = (app: string) => ({ matchLabels: { app } });
export const cilium = (name: string, spec: object, more: Partial<Written> = {}): Written => ({
  kind: 'CiliumNetworkPolicy',
  name,
  namespace,
  spec,
  ...more,
});
export const admin = (name: string, spec: object): Written => ({
  kind: 'ClusterNetworkPolicy',
  name,
  spec: {
    tier: 'Admin',
    priority: 10,
    subject: { namespaces: { matchLabels: { 'kubernetes.io/metadata.name': namespace } } },
    ...spec,
  },
});
export const staged = { 'weir.dev/enforcement': 'staged' };

export interface Flow {
  verdict: string;
  uuid: string;
  ingress_denied_by?: { kind: string; namespace: string; name: string; labels: string[] }[];
  egress_allowed_by?: { kind: string; name: string; labels: string[] }[];
  policy_log?: string[];
  Summary?: string;
}

/** The scene, set up before the tests of a suite and gone after them. */
export function languageScene() {
  let lab!: SharedLab;
  let scene!: Scene;
  let policies!: Policies;
  const closing: (() => unknown)[] = [];

  before(async () => {
    lab = await sharedLab();
    scene = await createScene(lab, namespace, { [peersNamespace]: { team: 'red' } });
    policies = createPolicies(lab, nodeNames.bare);
    const pods = [
      ['client', near, namespace],
      ['server-near', near, namespace],
      ['server-far', far, namespace],
      ['peer', far, peersNamespace],
    ] as const;
    for (const [name, node, of] of pods) {
      const app = name.split('-')[0]!;
      const pod = await scene.add({ node, name, namespace: of, labels: { app, pod: name } });
      if (name !== 'client') closing.push((await serveSteady(lab.record, pod, port)).close);
    }
    const steady = compileTool('steady');
    const inWorld = await startServer(await worldCommand(labName, [steady, 'serve', String(port)]));
    const onNode = await startServer(inNode(labName, far, [steady, 'serve', String(port)]));
    closing.push(inWorld.close, onNode.close);
    const world: Prober = await startProber(await worldCommand(labName, [compileTool('prober'), '80']));
    closing.push(world.close);
    await scene.settled();
  });
  afterEach(() => policies.removeAll());
  after(async () => {
    for (const close of closing) await close();
    await scene?.close();
  });

  const restart = async (node: string, options: readonly string[] = []) => {
    await startAgent(labName, node, options);
    await waitForAgent(labName, node);
    const synced = async () => (await lab.agent<{ synced: boolean }>(node, '/v1/sync')).synced;
    await waitFor(`the agent of ${node} to be in step`, synced, 20_000);
  };
  const becomes = (from: string, to: string, outcome: string, at = 80) =>
    waitFor(
      `${from} to ${to}:${at} to be ${outcome}`,
      async () => (await scene.probe(from, to, at)) === outcome,
      10_000,
      5,
    );
  const open = (to: readonly string[]) => traffic(lab, scene, 'client', to, port);
  const dryRun = (object: object) =>
    kubectl(labName, ['apply', '--dry-run=server', '--validate=strict', '-f', '-'], JSON.stringify(object));
  const conditionsBecome = (policy: Written, wanted: Readonly<Record<string, string>>) =>
    waitFor(
      `${policy.name} to be ${JSON.stringify(wanted)}`,
      async () => {
        const now = await policies.conditions(policy);
        if (Object.entries(wanted).every(([type, text]) => now[type] === text)) return now;
        throw new Error(JSON.stringify(now));
      },
      15_000,
    );
  async function flows(...args: readonly string[]): Promise<Flow[]> {
    const done = await attempt([weir, 'observe', '--context', labName, '-o', 'json', ...args]);
    assert.equal(done.status, 0, done.stderr);
    const lines = done.stdout.split('\n').filter(Boolean);
    return lines.flatMap((line) => (JSON.parse(line) as { flow?: Flow }).flow ?? []);
  }
  const flowFrom = (from: string, to: string, since: string, wanted: (flow: Flow) => boolean) =>
    waitFor(
      `a flow from ${from} to ${to}`,
      async () => {
        const ends = ['--from-pod', `${namespace}/${from}`, '--to-pod', `${namespace}/${to}`];
        return (await flows('--since', since, ...ends, '--all')).find(wanted);
      },
      10_000,
      100,
    );
  return {
    /** These are there once the suite has begun. */
    get lab() {
      return lab;
    },
    get scene() {
      return scene;
    },
    get policies() {
      return policies;
    },
    restart,
    becomes,
    open,
    dryRun,
    conditionsBecome,
    flows,
    flowFrom,
  };
}
