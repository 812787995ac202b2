// The language of policy as users meet it: what the API server takes, what a status says, what follows from a change of
// something that a policy refers to, and that no order of events opens what was closed before.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import {
  attempt,
  inNode,
  kubectl,
  nodeExec,
  startAgent,
  stopAgent,
  waitForAgent,
  worldCommand,
} from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import {
  createPolicies,
  isCut,
  isCutAndFreed,
  type Policies,
  type ShownPolicy,
  traffic,
  type Written,
} from './policy-scene.ts';
import { type Prober, startProber } from './prober.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { serveSteady, startServer } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const weir = join(import.meta.dirname, '../../bin/weir');
const [near, far] = nodeNames.bare;
const everyNode = [...nodeNames.real, ...nodeNames.bare];
const namespace = 'language';
const port = 7000;
/** Of the host outside. Its server of datagrams answers from the first. */
const outside = { one: ['10.77.0.2', 'fd77::2'], two: ['198.51.100.2', '2001:db8:100::2'] } as const;
const is = (app: string) => ({ matchLabels: { app } });
const cilium = (name: string, spec: object, more: Partial<Written> = {}): Written => ({
  kind: 'CiliumNetworkPolicy',
  name,
  namespace,
  spec,
  ...more,
});
const admin = (name: string, spec: object): Written => ({
  kind: 'ClusterNetworkPolicy',
  name,
  spec: {
    tier: 'Admin',
    priority: 10,
    subject: { namespaces: { matchLabels: { 'kubernetes.io/metadata.name': namespace } } },
    ...spec,
  },
});
const staged = { 'weir.dev/enforcement': 'staged' };

interface Flow {
  verdict: string;
  uuid: string;
  ingress_denied_by?: { kind: string; namespace: string; name: string; labels: string[] }[];
  egress_allowed_by?: { kind: string; name: string; labels: string[] }[];
  policy_log?: string[];
  Summary?: string;
}

describe('the language of policy', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  let policies: Policies;
  const closing: (() => unknown)[] = [];

  before(async () => {
    lab = await sharedLab();
    scene = await createScene(lab, namespace, { 'language-peers': { team: 'red' } });
    policies = createPolicies(lab, nodeNames.bare);
    const pods = [
      ['client', near, namespace],
      ['server-near', near, namespace],
      ['server-far', far, namespace],
      ['peer', far, 'language-peers'],
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

  describe('the API server', () => {
    const selector = { endpointSelector: {} };
    const ports = (...list: object[]) => ({ ...selector, ingress: [{ toPorts: [{ ports: list }] }] });
    const clusterwide = (spec: object): Written => ({ kind: 'CiliumClusterwideNetworkPolicy', name: 'tried', spec });
    const rule = (to: object, more: object = {}) => admin('tried', { egress: [{ action: 'Deny', to: [to], ...more }] });
    const refused: readonly (readonly [string, Written, RegExp])[] = [
      ['both selectors', clusterwide({ ...selector, nodeSelector: {}, ingress: [{}] }), /oneOf|valid.* one/i],
      ['no selector', cilium('tried', { ingress: [{}] }), /oneOf|Required value|valid.* one/i],
      ['no rules', cilium('tried', selector), /anyOf|Required value/i],
      ['a bad port', cilium('tried', ports({ port: 'no port!' })), /spec.ingress\[0\].toPorts\[0\].ports\[0\].port/],
      ['41 ports', cilium('tried', ports(...Array.from({ length: 41 }, (_, i) => ({ port: String(i + 1) })))), /40/],
      ['endPort 70000', cilium('tried', ports({ port: '80', endPort: 70_000 })), /endPort/],
      ['a strange protocol', cilium('tried', ports({ port: '80', protocol: 'QUIC' })), /protocol/],
      ['an unknown entity', cilium('tried', { ...selector, egress: [{ toEntities: ['moon'] }] }), /moon/],
      ['a long log', cilium('tried', { ...selector, egress: [{}], log: { value: 'x'.repeat(33) } }), /log/],
      ['a log not to be printed', cilium('tried', { ...selector, egress: [{}], log: { value: 'a\u0007' } }), /log/],
      [
        'a field that is none',
        cilium('tried', { ...selector, ingres: [{}], egress: [{}] }),
        /unknown field "spec.ingres"/,
      ],
      [
        'a block and a group',
        cilium('tried', { ...selector, egress: [{ toCIDRSet: [{ cidr: '10.0.0.0/8', cidrGroupRef: 'a' }] }] }),
        /oneOf|valid.* one/i,
      ],
      ['no tier', { ...admin('tried', {}), spec: { priority: 1, subject: { namespaces: {} } } }, /tier/],
      ['a tier that is none', admin('tried', { tier: 'Boss' }), /Boss/],
      ['priority 1001', admin('tried', { priority: 1001 }), /priority/],
      ['two subjects', admin('tried', { subject: { namespaces: {}, pods: { podSelector: {} } } }), /subject/],
      ['a network that is none', rule({ networks: ['10.0.0.0/33'] }), /must be a block/],
      ['26 networks', rule({ networks: Array.from({ length: 26 }, (_, i) => `10.0.${i}.0/24`) }), /25/],
      [
        'named ports of networks',
        rule({ networks: ['10.0.0.0/8'] }, { protocols: [{ destinationNamedPort: 'web' }] }),
        /named ports/,
      ],
      [
        'a range upside down',
        rule({ namespaces: {} }, { protocols: [{ tcp: { destinationPort: { range: { start: 9, end: 8 } } } }] }),
        /start must be below end/,
      ],
      [
        'an action that is none',
        admin('tried', { ingress: [{ action: 'Allow', from: [{ namespaces: {} }] }] }),
        /action/,
      ],
    ];
    const taken: readonly (readonly [string, Written])[] = [
      [
        'ports by number, range and name',
        cilium('tried', ports({ port: '80', protocol: 'TCP' }, { port: '8000', endPort: 9000 }, { port: 'web' })),
      ],
      ['an empty rule', cilium('tried', { ...selector, ingress: [{}] })],
      ['a list of specs', { ...cilium('tried', {}), spec: undefined as never }],
      ['nodes', clusterwide({ nodeSelector: {}, ingress: [{ fromEntities: ['cluster'] }] })],
      [
        'a baseline',
        admin('tried', { tier: 'Baseline', ingress: [{ action: 'Pass', name: 'x', from: [{ namespaces: {} }] }] }),
      ],
    ];

    test('refuses what means nothing, and says where', async () => {
      const wrong: string[] = [];
      await Promise.all(
        refused.map(async ([what, policy, words]) => {
          const { status, stderr } = await dryRun(policies.manifest(policy));
          if (status === 0) wrong.push(`${what}: accepted`);
          else if (!words.test(stderr)) wrong.push(`${what}: ${stderr.trim()}`);
        }),
      );
      assert.deepEqual(wrong, []);
    });

    test('takes what means something', async () => {
      const wrong: string[] = [];
      await Promise.all(
        taken.map(async ([what, policy]) => {
          const object = policies.manifest(policy);
          if (policy.spec === undefined) Object.assign(object, { specs: [{ ...selector, egress: [{}] }] });
          const { status, stderr } = await dryRun(object);
          if (status !== 0) wrong.push(`${what}: ${stderr.trim()}`);
        }),
      );
      assert.deepEqual(wrong, []);
    });

    test('shows policies in columns, by their short name', async () => {
      const policy = cilium('shown', { ...selector, ingress: [{}] });
      await policies.enforce(policy);
      await conditionsBecome(policy, { Valid: 'True Understood' });
      const shown = await lab.kubectl(['get', 'cnp.cilium.io', '-n', namespace]);
      assert.match(shown, /^NAME +AGE +VALID\nshown +\S+ +True\n$/);
    });
  });

  describe('status', () => {
    const allow = { endpointSelector: is('server'), ingress: [{ fromEndpoints: [{}] }] };

    test('says that a policy is understood and on which nodes it is in force', async () => {
      const policy = cilium('fine', allow);
      await policies.put(policy);
      const nodes = Object.fromEntries(everyNode.map((node) => [`${node}/Enforced`, 'True Enforced']));
      await conditionsBecome(policy, { Valid: 'True Understood', Enforced: 'True Enforced', ...nodes });
      const { status } = await lab.api.get(policies.path(policy));
      const own = status.conditions.find((each: { type: string }) => each.type === `${near}/Enforced`);
      assert.match(own.message, /^In the kernel at revision \d+$/);
    });

    test('of what is not understood says why, in an event too; it is closed', async () => {
      const policy = cilium('odd', { ...allow, ingress: [{ fromEndpoints: [{}], fromCIDR: ['10.0.0.0/8'] }] });
      await policies.enforce(policy);
      assert.equal(await scene.probe('client', 'server-near', 80), 'silent');
      await conditionsBecome(policy, { Valid: 'False NotUnderstood' });
      await waitFor(
        'the event',
        async () => {
          const text = await lab.kubectl(['describe', 'ciliumnetworkpolicy', '-n', namespace, 'odd']);
          return /NotUnderstood .*spec.ingress\[0\] combines fromEndpoints and fromCIDR/s.test(text);
        },
        10_000,
      );
      await policies.enforce(cilium('odd', allow));
      await conditionsBecome(policy, { Valid: 'True Understood', Enforced: 'True Enforced' });
      await becomes('client', 'server-near', 'ok');
    });

    test('tells what is in force in part, and what is staged', async () => {
      const part = cilium('part', {
        endpointSelector: is('server'),
        egress: [{ toFQDNs: [{ matchName: 'example.com' }] }, { toEndpoints: [{}] }],
      });
      const trial = cilium('trial', { ...allow, ingress: [{}] }, { annotations: staged });
      await Promise.all([policies.put(part), policies.put(trial)]);
      await conditionsBecome(part, { Valid: 'True Understood', Enforced: 'False InPart' });
      await conditionsBecome(trial, { Valid: 'True Understood', Enforced: 'False Staged' });
      await policies.put({ ...trial, annotations: { 'weir.dev/enforcement': 'enforced' } });
      await conditionsBecome(trial, { Enforced: 'True Enforced' });
    });

    test('is written once: other policies, agents and nodes that come and go do not make it flap', async () => {
      const policy = cilium('still', allow);
      const node = 'language-node';
      await policies.put(policy);
      await conditionsBecome(policy, { Enforced: 'True Enforced' });
      const version = async () => (await lab.api.get(policies.path(policy))).metadata.resourceVersion;
      const settled = await version();
      for (let i = 0; i < 2; i++) {
        const other = cilium(`other-${i}`, allow);
        await policies.put(other);
        await conditionsBecome(other, { Enforced: 'True Enforced' });
        await policies.put(cilium(`other-${i}`, { ...allow, egress: [{}] }));
        await policies.remove(other);
      }
      assert.equal(await version(), settled);
      await stopAgent(labName, near, 'kill');
      await restart(near);
      const last = cilium('last', allow);
      await policies.put(last);
      await conditionsBecome(last, { Enforced: 'True Enforced' });
      assert.equal(await version(), settled, 'an agent that starts again has what it had');
      await lab.api.create('/api/v1/nodes', {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name: node },
        spec: { taints: [{ key: 'weir.dev/kubeletless', effect: 'NoSchedule' }] },
      });
      try {
        const later = cilium('later', allow);
        await policies.put(later);
        await conditionsBecome(later, { Enforced: 'True Enforced' });
        assert.equal(await version(), settled, 'a node on which no agent has run is no news of a policy');
        assert.ok(!Object.hasOwn(await policies.conditions(later), `${node}/Enforced`));
      } finally {
        await lab.api.delete(`/api/v1/nodes/${node}`);
      }
    });
  });

  describe('what a policy refers to', () => {
    const clientMay = (...egress: object[]) => cilium('client', { endpointSelector: is('client'), egress });
    const service = (name: string, selector: object | undefined, labels: object = {}) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace, labels },
      spec: { ...(selector && { selector }), ports: [{ port: 9 }] },
    });
    const change = (path: string, body: object) => () => lab.api.patch(path, body);
    const services = `/api/v1/namespaces/${namespace}/services`;

    test('a group of blocks', async () => {
      const group = (cidrs: readonly string[]): Written => ({
        kind: 'CiliumCIDRGroup',
        name: 'language-partners',
        spec: { externalCIDRs: cidrs },
      });
      const own = outside.one.map((address) => (address.includes(':') ? `${address}/128` : `${address}/32`));
      await lab.apply([policies.manifest(group(own))]);
      try {
        await policies.enforce(clientMay({ toCIDRSet: [{ cidrGroupRef: 'language-partners' }] }));
        await isCutAndFreed('traffic to the group', open(outside.one), {
          cut: () => lab.apply([policies.manifest(group(['203.0.113.0/24']))]),
          free: () => lab.apply([policies.manifest(group(own))]),
        });
      } finally {
        await lab.api.delete(policies.path(group([])));
      }
    });

    test('a service by its name, and by its labels', async () => {
      const path = `${services}/chosen`;
      await lab.apply([service('chosen', { app: 'server' }, { tier: 'back' })]);
      try {
        await policies.enforce(clientMay({ toServices: [{ k8sService: { serviceName: 'chosen', namespace } }] }));
        const to = scene.pod('server-far').addresses;
        await isCutAndFreed('traffic to the service’s pods', open(to), {
          cut: change(path, { spec: { selector: { app: 'nobody' } } }),
          free: change(path, { spec: { selector: { app: 'server' } } }),
        });
        const back = { matchLabels: { tier: 'back' } };
        await policies.enforce(clientMay({ toServices: [{ k8sServiceSelector: { selector: back, namespace } }] }));
        await isCutAndFreed('traffic to pods of services', open(to), {
          cut: change(path, { metadata: { labels: { tier: 'front' } } }),
          free: change(path, { metadata: { labels: { tier: 'back' } } }),
        });
      } finally {
        await lab.api.delete(path);
      }
    });

    test('a service without selector, by the endpoints that somebody wrote', async () => {
      const slice = (family: 4 | 6, addresses: readonly string[]) => ({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { name: `byhand-${family}`, namespace, labels: { 'kubernetes.io/service-name': 'byhand' } },
        addressType: `IPv${family}`,
        endpoints: addresses.map((address) => ({ addresses: [address] })),
        ports: [{ port }],
      });
      const slices = ([four, six]: readonly [string, string]) => [slice(4, [four]), slice(6, [six])];
      await lab.apply([service('byhand', undefined), ...slices(outside.one)]);
      try {
        await policies.enforce(clientMay({ toServices: [{ k8sService: { serviceName: 'byhand', namespace } }] }));
        await isCutAndFreed('traffic to endpoints', open(outside.one), {
          cut: () => lab.apply(slices(outside.two)),
          free: () => lab.apply(slices(outside.one)),
        });
      } finally {
        await lab.api.delete(`${services}/byhand`);
      }
    });

    test('nodes by their labels', async () => {
      const label = (text: string) => () => lab.kubectl(['label', 'node', far, text, '--overwrite']);
      const { addresses } = (await lab.status()).nodes.find((each) => each.name === far)!;
      await label('language=yes')();
      await policies.enforce(clientMay({ toNodes: [{ matchLabels: { language: 'yes' } }] }));
      await isCutAndFreed('traffic to the node', open(addresses), {
        cut: label('language=no'),
        free: label('language=yes'),
      });
      await label('language-')();
    });

    test('labels of namespaces and of pods', async () => {
      const label = (what: string[], text: string) => () => lab.kubectl(['label', ...what, text, '--overwrite']);
      const red = { 'k8s:io.cilium.k8s.namespace.labels.team': 'red' };
      await policies.enforce(clientMay({ toEndpoints: [{ matchLabels: red }] }));
      const peers = ['namespace', 'language-peers'];
      await isCutAndFreed('traffic to the namespace', open(scene.pod('peer').addresses), {
        cut: label(peers, 'team=blue'),
        free: label(peers, 'team=red'),
      });
      await policies.enforce(clientMay({ toEndpoints: [is('server')] }));
      const pod = ['pod', '-n', namespace, 'server-near'];
      await isCutAndFreed('traffic to the pod', open(scene.pod('server-near').addresses), {
        cut: label(pod, 'app=other'),
        free: label(pod, 'app=server'),
      });
    });

    test('the API server, which is outside of the nodes', async () => {
      await policies.enforce(clientMay({ toEntities: ['kube-apiserver'] }));
      const probe = (address: string, at: number) => scene.pod('client').prober.probe('tcp', address, at, 500);
      assert.equal(await probe('10.77.0.1', 6443), 'ok');
      assert.equal(await probe(outside.one[0], 80), 'silent');
      await policies.enforce(
        cilium('client', {
          endpointSelector: is('client'),
          egress: [{ toEntities: ['all'] }],
          egressDeny: [{ toEntities: ['kube-apiserver'] }],
        }),
      );
      assert.equal(await probe('10.77.0.1', 6443), 'silent');
      assert.equal(await probe(outside.one[0], 80), 'ok');
    });

    test('a deny of services holds from the moment the policy is in force', async () => {
      await lab.apply([service('denied', { app: 'server' })]);
      try {
        for (let i = 0; i < 3; i++) {
          const policy = cilium(`no-service-${i}`, {
            endpointSelector: is('client'),
            egress: [{ toEntities: ['all'] }],
            egressDeny: [{ toServices: [{ k8sService: { serviceName: 'denied', namespace } }] }],
          });
          await policies.enforce(policy);
          assert.equal(await scene.probe('client', 'server-far', 80), 'silent');
          await policies.remove(policy);
        }
      } finally {
        await lab.api.delete(`${services}/denied`);
      }
    });
  });

  describe('one policy in another’s place', () => {
    const fromClient = { endpointSelector: is('server'), ingress: [{ fromEndpoints: [is('client')] }] };

    test('neither opens a gap nor closes what both allow, under a stream of connections', async () => {
      await policies.enforce(cilium('old', fromClient));
      const steady = open(['server-near', 'server-far'].flatMap((name) => scene.pod(name).addresses));
      const knocking = { stop: false, passed: 0, tried: 0 };
      const knock = (async () => {
        while (!knocking.stop) {
          const { addresses } = scene.pod('server-far');
          const tries = addresses.map((address) => scene.pod('peer').prober.probe('tcp', address, 80, 250));
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
        await policies.enforce(cilium(next, spec));
        await policies.remove(cilium(last, {}));
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
      await policies.enforce(trial);
      await isCutAndFreed('traffic', open(scene.pod('server-far').addresses), {
        cut: () =>
          policies
            .put({ ...trial, annotations: {} })
            .then(() =>
              lab.kubectl([
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
          lab.kubectl([
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
      await policies.enforce(cilium('closed', { endpointSelector: is('server'), ingress: [{}] }));
      const rule = (action: string) => admin('language-admin', { ingress: [{ action, from: [{ namespaces: {} }] }] });
      await policies.enforce(rule('Accept'));
      await isCutAndFreed('traffic', open(scene.pod('server-far').addresses), {
        cut: () => policies.put(rule('Deny')),
        free: () => policies.put(rule('Accept')),
      });
    });
  });

  describe('staged', () => {
    const deny = cilium('trial', { endpointSelector: is('server'), ingressDeny: [{ fromEndpoints: [is('client')] }] });
    const now = () => new Date().toISOString();
    const wouldDeny = async (from = 'client') => {
      const since = now();
      assert.equal(await scene.probe(from, 'server-near', 80), 'ok');
      await flowFrom(from, 'server-near', since, (flow) =>
        /staged policies would deny ingress/.test(flow.Summary ?? ''),
      );
    };

    test('by the policy: never enforced, in every flow, after a restart too', async () => {
      await policies.enforce({ ...deny, annotations: staged });
      const steady = open(scene.pod('server-near').addresses);
      await steady.more(20);
      await wouldDeny();
      await stopAgent(labName, near, 'kill');
      await steady.more(20);
      await restart(near);
      await wouldDeny();
      const { counts, losses } = await steady.stop();
      assert.equal(counts.lost, 0, losses);
    });

    test('by the namespace, which a policy may override', async () => {
      await lab.kubectl(['annotate', 'namespace', namespace, 'weir.dev/enforcement=staged']);
      try {
        await policies.enforce(deny);
        await becomes('client', 'server-near', 'ok');
        await wouldDeny();
        await policies.put({ ...deny, annotations: { 'weir.dev/enforcement': 'enforced' } });
        await becomes('client', 'server-near', 'silent');
      } finally {
        await lab.kubectl(['annotate', 'namespace', namespace, 'weir.dev/enforcement-']);
      }
      await lab.kubectl(['annotate', 'cnp.cilium.io', '-n', namespace, 'trial', 'weir.dev/enforcement-']);
      await becomes('client', 'server-far', 'silent');
    });

    test('by the flag of the agent', async () => {
      await policies.enforce(deny);
      assert.equal(await scene.probe('client', 'server-near', 80), 'silent');
      await stopAgent(labName, near, 'ask');
      try {
        await restart(near, ['--policy-enforcement', 'staged']);
        await becomes('client', 'server-near', 'ok');
        await wouldDeny();
      } finally {
        await stopAgent(labName, near, 'ask');
        await restart(near);
      }
      await becomes('client', 'server-near', 'silent');
    });
  });

  test('flows name the kind, namespace, name and rule, and carry the log value', async () => {
    const deny = cilium('audited', {
      endpointSelector: is('server'),
      ingressDeny: [{ fromEndpoints: [is('client')], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] }],
      log: { value: 'audit-7' },
    });
    await policies.enforce(deny);
    const since = new Date().toISOString();
    assert.equal(await scene.probe('client', 'server-near', 80), 'silent');
    const flow = await flowFrom('client', 'server-near', since, ({ verdict }) => verdict === 'DROPPED');
    const [by] = flow.ingress_denied_by!;
    assert.deepEqual([by!.kind, by!.namespace, by!.name], ['CiliumNetworkPolicy', namespace, 'audited']);
    assert.ok(by!.labels.includes('weir:rule=ingressDeny[0]'), by!.labels.join());
    assert.deepEqual(flow.policy_log, ['audit-7']);
  });

  describe('a new pod', () => {
    const deny = (name: string, app: string, spec: object = { egressDeny: [{ toEntities: ['all'] }] }) =>
      cilium(name, { endpointSelector: is(app), ...spec });

    test('sends nothing against a policy that was acknowledged before it was made', async () => {
      const outcomes = new Set<string>();
      for (let round = 0; round < 8; round++) {
        const name = `fenced-${round}`;
        // The name stands for another policy, which allows, until a moment ago.
        await policies.enforce(deny('fence', name, { egress: [{ toEntities: ['all'] }] }));
        await lab.api.delete(policies.path(deny('fence', name)));
        const stopped = round % 2 === 0;
        const pid = (await lab.status()).nodes.find((each) => each.name === near)!.agentPid!;
        if (stopped) process.kill(pid, 'SIGSTOP');
        let adding: ReturnType<Scene['add']>;
        try {
          await lab.apply([policies.manifest(deny('fence', name))]);
          adding = scene.add({ node: near, name, labels: { app: name } });
        } finally {
          if (stopped) setTimeout(() => process.kill(pid, 'SIGCONT'), 30 * round);
        }
        await adding;
        for (const server of ['server-near', 'server-far']) outcomes.add(await scene.probe(name, server, 80));
        await scene.remove(name);
      }
      assert.deepEqual([...outcomes], ['silent']);
    });

    test('is told to try again while the API server cannot be reached, and nothing of it is left', async () => {
      const before = await lab.agent<{ pod: string }[]>(near, '/v1/endpoints');
      const links = async () =>
        (await nodeExec(labName, near, ['ip', '-br', 'link'])).stdout.match(/^weir\d+/gm)?.length;
      const had = await links();
      const route = (verb: string) => nodeExec(labName, near, ['ip', 'route', verb, 'blackhole', '10.77.0.1/32']);
      await route('add');
      try {
        await assert.rejects(scene.add({ node: near, name: 'too-early', labels: { app: 'early' } }), /"code": ?11/);
      } finally {
        await route('delete');
      }
      const after = await lab.agent<{ pod: string }[]>(near, '/v1/endpoints');
      assert.deepEqual(after.map((row) => row.pod).sort(), before.map((row) => row.pod).sort());
      await waitFor('the device to be gone', async () => (await links()) === had, 5_000);
      await lab.api.delete(`/api/v1/namespaces/${namespace}/pods/too-early`, { gracePeriodSeconds: 0 });
      await waitFor(
        'the agent to hear again',
        async () => (await lab.agent<{ apiServer: { connected: boolean } }>(near, '/v1/status')).apiServer.connected,
        60_000,
      );
    });
  });

  describe('agents that die', () => {
    const deny = cilium('deny', { endpointSelector: is('server'), ingressDeny: [{ fromEndpoints: [is('client')] }] });

    test('in the middle of changes: what is in the kernel afterwards is what the API server has', async () => {
      for (let round = 0; round < 2; round++) {
        await Promise.all([
          policies.put(deny),
          ...nodeNames.bare.map((node) => stopAgent(labName, node, 'kill')),
          policies.put(
            cilium(`also-${round}`, { endpointSelector: is('server'), ingress: [{ fromEntities: ['all'] }] }),
          ),
        ]);
        await Promise.all(nodeNames.bare.map((node) => restart(node)));
        for (const server of ['server-near', 'server-far']) await becomes('client', server, 'silent');
        await Promise.all(nodeNames.bare.map((node) => stopAgent(labName, node, 'kill')));
        await lab.api.delete(policies.path(deny));
        assert.equal(await scene.probe('client', 'server-near', 80), 'silent', 'without an agent nothing opens');
        await Promise.all(nodeNames.bare.map((node) => restart(node)));
        for (const server of ['server-near', 'server-far']) await becomes('client', server, 'ok');
      }
    });
  });

  test('`weir policy list` and `weir status` say the same', async () => {
    const odd = cilium('odd', {
      endpointSelector: is('server'),
      ingress: [{ fromEndpoints: [{}], fromCIDR: ['10.0.0.0/8'] }],
    });
    const rules = Array.from({ length: 1_001 }, () => ({ toEntities: ['world'] }));
    const greedy = cilium('greedy', { endpointSelector: is('nobody'), egress: rules });
    await policies.put(greedy);
    await policies.enforce(odd);
    const list = async (...args: string[]) => {
      const done = await attempt([weir, 'policy', 'list', '--context', labName, '-n', namespace, ...args]);
      assert.equal(done.status, 0, done.stderr);
      return done.stdout;
    };
    const rows = JSON.parse(await list('-o', 'json')) as ShownPolicy[];
    assert.match(rows.find((row) => row.name === 'greedy')?.error ?? '', /has 1001 rules; 1000 are allowed/);
    assert.match(await list('--invalid'), /combines fromEndpoints and fromCIDR/);
    await conditionsBecome(greedy, { Valid: 'False NotUnderstood' });
    const externalCIDRs = Array.from({ length: 5_001 }, (_, i) => `203.${100 + (i >> 8)}.${i & 255}.0/24`);
    const group: Written = { kind: 'CiliumCIDRGroup', name: 'language-many', spec: { externalCIDRs } };
    const filled = cilium('filled', {
      endpointSelector: is('nobody'),
      egress: [{ toCIDRSet: [{ cidrGroupRef: 'language-many' }] }],
    });
    await policies.enforce(filled);
    await lab.api.create('/apis/cilium.io/v2/ciliumcidrgroups', policies.manifest(group));
    try {
      await conditionsBecome(filled, { Valid: 'False NotUnderstood' });
      const all = JSON.parse(await list('-o', 'json')) as ShownPolicy[];
      assert.match(all.find((row) => row.name === 'filled')?.error ?? '', /has 5001 blocks; 5000 are allowed/);
    } finally {
      await lab.api.delete(policies.path(group));
    }
    await conditionsBecome(filled, { Valid: 'True Understood', Enforced: 'True Enforced' });
    assert.equal(await scene.probe('client', 'peer', 80), 'ok', 'others are untouched');
    const steady = open(scene.pod('server-near').addresses);
    await isCut('traffic', steady);
    await steady.stop();
  });
});
