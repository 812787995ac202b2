// Policies as users write and read them: what the API server takes, what a status and the commands say, what flows carry.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { attempt, stopAgent } from '../../lab/lab.ts';
import { admin, cilium, everyNode, is, languageScene, namespace, near, skip, staged, weir } from './language-scene.ts';
import { isCut, type ShownPolicy, type Written } from './policy-scene.ts';
import { labName, waitFor } from './shared-lab.ts';

describe('policies as users meet them', { skip }, () => {
  const at = languageScene();

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
          const { status, stderr } = await at.dryRun(at.policies.manifest(policy));
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
          const object = at.policies.manifest(policy);
          if (policy.spec === undefined) Object.assign(object, { specs: [{ ...selector, egress: [{}] }] });
          const { status, stderr } = await at.dryRun(object);
          if (status !== 0) wrong.push(`${what}: ${stderr.trim()}`);
        }),
      );
      assert.deepEqual(wrong, []);
    });

    test('shows policies in columns, by their short name', async () => {
      const policy = cilium('shown', { ...selector, ingress: [{}] });
      await at.policies.enforce(policy);
      await at.conditionsBecome(policy, { Valid: 'True Understood' });
      const shown = await at.lab.kubectl(['get', 'cnp.cilium.io', '-n', namespace]);
      assert.match(shown, /^NAME +AGE +VALID\nshown +\S+ +True\n$/);
    });
  });

  describe('status', () => {
    const allow = { endpointSelector: is('server'), ingress: [{ fromEndpoints: [{}] }] };

    test('says that a policy is understood and on which nodes it is in force', async () => {
      const policy = cilium('fine', allow);
      await at.policies.put(policy);
      const nodes = Object.fromEntries(everyNode.map((node) => [`${node}/Enforced`, 'True Enforced']));
      await at.conditionsBecome(policy, { Valid: 'True Understood', Enforced: 'True Enforced', ...nodes });
      const { status } = await at.lab.api.get(at.policies.path(policy));
      const own = status.conditions.find((each: { type: string }) => each.type === `${near}/Enforced`);
      assert.match(own.message, /^In the kernel at revision \d+$/);
    });

    test('of what is not understood says why, in an event too; it is closed', async () => {
      const policy = cilium('odd', { ...allow, ingress: [{ fromEndpoints: [{}], fromCIDR: ['10.0.0.0/8'] }] });
      await at.policies.enforce(policy);
      assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent');
      await at.conditionsBecome(policy, { Valid: 'False NotUnderstood' });
      await waitFor(
        'the event',
        async () => {
          const text = await at.lab.kubectl(['describe', 'ciliumnetworkpolicy', '-n', namespace, 'odd']);
          return /NotUnderstood .*spec.ingress\[0\] combines fromEndpoints and fromCIDR/s.test(text);
        },
        10_000,
      );
      await at.policies.enforce(cilium('odd', allow));
      await at.conditionsBecome(policy, { Valid: 'True Understood', Enforced: 'True Enforced' });
      await at.becomes('client', 'server-near', 'ok');
    });

    test('tells what is in force in part, and what is staged', async () => {
      const part = cilium('part', {
        endpointSelector: is('server'),
        egress: [{ toFQDNs: [{ matchName: 'example.com' }] }, { toEndpoints: [{}] }],
      });
      const trial = cilium('trial', { ...allow, ingress: [{}] }, { annotations: staged });
      await Promise.all([at.policies.put(part), at.policies.put(trial)]);
      await at.conditionsBecome(part, { Valid: 'True Understood', Enforced: 'False InPart' });
      await at.conditionsBecome(trial, { Valid: 'True Understood', Enforced: 'False Staged' });
      await at.policies.put({ ...trial, annotations: { 'weir.dev/enforcement': 'enforced' } });
      await at.conditionsBecome(trial, { Enforced: 'True Enforced' });
    });

    test('is written once: other policies, agents and nodes that come and go do not make it flap', async () => {
      const policy = cilium('still', allow);
      const node = 'language-node';
      await at.policies.put(policy);
      await at.conditionsBecome(policy, { Enforced: 'True Enforced' });
      const version = async () => (await at.lab.api.get(at.policies.path(policy))).metadata.resourceVersion;
      const settled = await version();
      for (let i = 0; i < 2; i++) {
        const other = cilium(`other-${i}`, allow);
        await at.policies.put(other);
        await at.conditionsBecome(other, { Enforced: 'True Enforced' });
        await at.policies.put(cilium(`other-${i}`, { ...allow, egress: [{}] }));
        await at.policies.remove(other);
      }
      assert.equal(await version(), settled);
      await stopAgent(labName, near, 'kill');
      await at.restart(near);
      const last = cilium('last', allow);
      await at.policies.put(last);
      await at.conditionsBecome(last, { Enforced: 'True Enforced' });
      assert.equal(await version(), settled, 'an agent that starts again has what it had');
      await at.lab.api.create('/api/v1/nodes', {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name: node },
        spec: { taints: [{ key: 'weir.dev/kubeletless', effect: 'NoSchedule' }] },
      });
      try {
        const later = cilium('later', allow);
        await at.policies.put(later);
        await at.conditionsBecome(later, { Enforced: 'True Enforced' });
        assert.equal(await version(), settled, 'a node on which no agent has run is no news of a policy');
        assert.ok(!Object.hasOwn(await at.policies.conditions(later), `${node}/Enforced`));
      } finally {
        await at.lab.api.delete(`/api/v1/nodes/${node}`);
      }
    });
  });

  test('flows name the kind, namespace, name and rule, and carry the log value', async () => {
    const deny = cilium('audited', {
      endpointSelector: is('server'),
      ingressDeny: [{ fromEndpoints: [is('client')], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] }],
      log: { value: 'audit-7' },
    });
    await at.policies.enforce(deny);
    const since = new Date().toISOString();
    assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent');
    const flow = await at.flowFrom('client', 'server-near', since, ({ verdict }) => verdict === 'DROPPED');
    const [by] = flow.ingress_denied_by!;
    assert.deepEqual([by!.kind, by!.namespace, by!.name], ['CiliumNetworkPolicy', namespace, 'audited']);
    assert.ok(by!.labels.includes('weir:rule=ingressDeny[0]'), by!.labels.join());
    assert.deepEqual(flow.policy_log, ['audit-7']);
  });

  test('`weir policy list` and `weir status` say the same', async () => {
    const odd = cilium('odd', {
      endpointSelector: is('server'),
      ingress: [{ fromEndpoints: [{}], fromCIDR: ['10.0.0.0/8'] }],
    });
    const rules = Array.from({ length: 1_001 }, () => ({ toEntities: ['world'] }));
    const greedy = cilium('greedy', { endpointSelector: is('nobody'), egress: rules });
    await at.policies.put(greedy);
    await at.policies.enforce(odd);
    const list = async (...args: string[]) => {
      const done = await attempt([weir, 'policy', 'list', '--context', labName, '-n', namespace, ...args]);
      assert.equal(done.status, 0, done.stderr);
      return done.stdout;
    };
    const rows = JSON.parse(await list('-o', 'json')) as ShownPolicy[];
    assert.match(rows.find((row) => row.name === 'greedy')?.error ?? '', /has 1001 rules; 1000 are allowed/);
    assert.match(await list('--invalid'), /combines fromEndpoints and fromCIDR/);
    await at.conditionsBecome(greedy, { Valid: 'False NotUnderstood' });
    const externalCIDRs = Array.from({ length: 5_001 }, (_, i) => `203.${100 + (i >> 8)}.${i & 255}.0/24`);
    const group: Written = { kind: 'CiliumCIDRGroup', name: 'language-many', spec: { externalCIDRs } };
    const filled = cilium('filled', {
      endpointSelector: is('nobody'),
      egress: [{ toCIDRSet: [{ cidrGroupRef: 'language-many' }] }],
    });
    await at.policies.enforce(filled);
    await at.lab.api.create('/apis/cilium.io/v2/ciliumcidrgroups', at.policies.manifest(group));
    try {
      await at.conditionsBecome(filled, { Valid: 'False NotUnderstood' });
      const all = JSON.parse(await list('-o', 'json')) as ShownPolicy[];
      assert.match(all.find((row) => row.name === 'filled')?.error ?? '', /has 5001 blocks; 5000 are allowed/);
    } finally {
      await at.lab.api.delete(at.policies.path(group));
    }
    await at.conditionsBecome(filled, { Valid: 'True Understood', Enforced: 'True Enforced' });
    assert.equal(await at.scene.probe('client', 'peer', 80), 'ok', 'others are untouched');
    const steady = at.open(at.scene.pod('server-near').addresses);
    await isCut('traffic', steady);
    await steady.stop();
  });
});
