// A real Kubernetes with containers and the stock kubectl: the example shop works under its policies, what they do not
// allow is denied, and kubelet, names, exec and logs do not suffer from a default deny.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attempt, type CommandResult, kubectl } from '../../lab/lab.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const root = fileURLToPath(new URL('../..', import.meta.url));
const shop = join(root, 'examples/shop');
const namespaces = ['storefront', 'backend', 'data'];

describe('kubernetes', { skip }, () => {
  let lab: SharedLab;

  before(async () => {
    lab = await sharedLab();
    await waitFor(
      'the shop of an earlier run to be gone',
      async () => {
        const left = (await lab.api.list('/api/v1/namespaces')).filter((each) =>
          namespaces.includes(each.metadata.name),
        );
        for (const each of left) await lab.api.delete(`/api/v1/namespaces/${each.metadata.name}`);
        return left.length === 0;
      },
      90_000,
      500,
    );
    await lab.kubectl(['apply', '-k', shop]);
    await lab.kubectl(['apply', '-f', join(shop, 'policies.yaml')]);
    await allAvailable();
    await policiesEnforced();
  });
  after(async () => {
    await lab?.kubectl(['delete', 'namespace', ...namespaces, 'odd', '--wait=false', '--ignore-not-found']);
  });

  const allAvailable = () =>
    Promise.all(
      namespaces.map((each) =>
        lab.kubectl(['wait', '-n', each, '--for=condition=Available', 'deployment', '--all', '--timeout=90s']),
      ),
    );
  const policiesEnforced = () =>
    waitFor(
      'the agents to enforce all policies',
      async () => {
        const wanted = await lab.api.list('/apis/networking.k8s.io/v1/networkpolicies');
        for (const node of nodeNames.real) {
          const rows = await lab.agent<{ uid: string }[]>(node, '/v1/policies');
          if (!wanted.every((each) => rows.some((row) => row.uid === each.metadata.uid))) return undefined;
        }
        return true;
      },
      20_000,
    );
  /** Runs a command in a pod of a deployment. */
  const exec = (namespace: string, deployment: string, ...argv: string[]): Promise<CommandResult> =>
    kubectl(labName, ['exec', '-n', namespace, `deploy/${deployment}`, '--', ...argv]);
  const fetch = (namespace: string, deployment: string, family: 4 | 6, url: string) =>
    exec(
      namespace,
      deployment,
      'curl',
      '-sS',
      `-${family}`,
      '--max-time',
      '2',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      url,
    );
  /** What curl says when nobody answers. */
  const timedOut = 28;

  test('the folder of the shop is the same as its parts', async () => {
    const applied = (await lab.kubectl(['apply', '-f', shop])).trim().split('\n');
    assert.ok(applied.length > 30, applied.join(', '));
    assert.deepEqual(
      applied.filter((line) => line.endsWith(' created')),
      [],
    );
  });

  test('the shop’s customers buy', async () => {
    await waitFor(
      'an order through all of the shop',
      async () => /bought: /.test(await lab.kubectl(['logs', '-n', 'storefront', 'deploy/shopper', '--since=20s'])),
      30_000,
      200,
    );
  });

  test('allowed connections work in both families, denied ones are silent', async () => {
    const wanted = [
      ['storefront', 'shopper', 'http://web.storefront:8080/healthy', true],
      ['storefront', 'web', 'http://catalog.backend:8080/healthy', true],
      ['storefront', 'recommender', 'http://catalog.backend:8080/healthy', true],
      ['backend', 'checkout', 'http://payment.backend:8080/healthy', true],
      ['storefront', 'shopper', 'http://catalog.backend:8080/healthy', false],
      ['storefront', 'recommender', 'http://payment.backend:8080/healthy', false],
      ['storefront', 'web', 'http://payment.backend:8080/healthy', false],
      ['backend', 'checkout', 'http://web.storefront:8080/healthy', false],
      ['backend', 'catalog', 'http://redis.data:6379', false],
    ] as const;
    const wrong: string[] = [];
    await Promise.all(
      wanted.flatMap(([namespace, from, url, allowed]) =>
        ([4, 6] as const).map(async (family) => {
          const { status, stdout, stderr } = await fetch(namespace, from, family, url);
          const right = allowed ? stdout === '200' : stdout === '000' && /timed out|time-out/i.test(stderr);
          if (!right) wrong.push(`${from} to ${url} IPv${family}: curl ${status} ${stdout} ${stderr.trim()}`);
          if (!allowed && !new RegExp(`exit code ${timedOut}`).test(stderr)) wrong.push(`${from}: ${stderr.trim()}`);
        }),
      ),
    );
    assert.deepEqual(wrong, []);
  });

  test('names: a service is its own addresses, a headless one those of its pods, in both families', async () => {
    await lab.apply([
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web-pods', namespace: 'storefront' },
        spec: {
          clusterIP: 'None',
          ipFamilyPolicy: 'PreferDualStack',
          selector: { app: 'web' },
          ports: [{ port: 8080 }],
        },
      },
    ]);
    const { items } = JSON.parse(
      await lab.kubectl([
        'get',
        'pods',
        '-n',
        'storefront',
        '-l',
        'app=web',
        '--field-selector=status.phase=Running',
        '-o',
        'json',
      ]),
    ) as { items: { metadata: { deletionTimestamp?: string }; status: { podIPs: { ip: string }[] } }[] };
    const expected = items
      .filter((each) => each.metadata.deletionTimestamp === undefined)
      .flatMap((each) => each.status.podIPs.map(({ ip }) => ip))
      .sort();
    await waitFor(
      `the name server to answer ${expected.join(' ')}`,
      async () => {
        const answers = await Promise.all(
          ['A', 'AAAA'].map((type) =>
            exec(
              'storefront',
              'shopper',
              'dig',
              '+short',
              '+time=2',
              '+tries=1',
              type,
              'web-pods.storefront.svc.cluster.local',
            ),
          ),
        );
        const found = answers.flatMap(({ stdout }) => stdout.split('\n').filter(Boolean)).sort();
        if (found.join() !== expected.join()) throw new Error(`it answers ${found.join(' ')}`);
        return true;
      },
      40_000,
      500,
    );
    const tcp = await exec(
      'storefront',
      'shopper',
      'dig',
      '+tcp',
      '+short',
      '+time=2',
      '+tries=1',
      'cart.backend.svc.cluster.local',
    );
    assert.match(tcp.stdout, /^10\.96\./, tcp.stderr);
    // A pod of the namespace without the rule for names asks in vain.
    const none = await exec('data', 'ledger', 'dig', '+time=1', '+tries=1', 'web.storefront.svc.cluster.local');
    assert.match(none.stdout + none.stderr, /timed out|no servers could be reached/);
  });

  test('kubelet’s probes pass a default deny: new pods become ready and stay so', async () => {
    await lab.kubectl(['rollout', 'restart', '-n', 'storefront', 'deployment/web']);
    await lab.kubectl(['rollout', 'status', '-n', 'storefront', 'deployment/web', '--timeout=60s']);
    const { items } = JSON.parse(
      await lab.kubectl(['get', 'pods', '-n', 'storefront', '-l', 'app=web', '-o', 'json']),
    ) as {
      items: {
        metadata: { deletionTimestamp?: string };
        status: { containerStatuses: { ready: boolean; restartCount: number }[] };
      }[];
    };
    const alive = items.filter((each) => each.metadata.deletionTimestamp === undefined);
    assert.equal(alive.length, 2);
    for (const { status } of alive)
      assert.deepEqual(
        status.containerStatuses.map(({ ready, restartCount }) => ({ ready, restartCount })),
        [{ ready: true, restartCount: 0 }],
      );
  });

  test('exec and logs work under a default deny', async () => {
    const { stdout } = await exec('data', 'redis', 'cat', '/proc/1/comm');
    assert.match(stdout, /\S/);
    assert.match(await lab.kubectl(['logs', '-n', 'backend', 'deploy/catalog']), /listening on 8080/);
  });

  test('malformed policies are answered by the API server, and change nothing', async () => {
    const policy = (spec: object) => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'malformed', namespace: 'default' },
      spec,
    });
    const block = (cidr: string, except: string[] = []) =>
      policy({ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr, except } }] }] });
    const ports = (port: object) => policy({ podSelector: {}, ingress: [{ ports: [port] }] });
    for (const [object, words] of [
      [block('10.0.0.0/33'), /cidr/i],
      [block('10.0.0/8'), /cidr/i],
      [block('10.0.0.0/8', ['192.168.0.0/16']), /except/],
      [ports({ port: 8080, endPort: 80 }), /endPort/],
      [ports({ port: 'http', endPort: 80 }), /endPort/],
      [ports({ port: 70_000 }), /between 1 and 65535/],
      [ports({ protocol: 'ICMP', port: 8 }), /protocol/],
      [policy({ podSelector: { matchLabels: { 'a b': 'c' } } }), /podSelector/],
      [policy({ podSelector: { matchExpressions: [{ key: 'a', operator: 'Near', values: [] }] } }), /operator/],
      [policy({ podSelector: {}, policyTypes: ['Sideways'] }), /policyTypes/],
      [policy({ podSelector: {}, ingres: [] }), /unknown field "spec.ingres"/],
    ] as const) {
      const done = await kubectl(labName, ['apply', '--validate=strict', '-f', '-'], JSON.stringify(object));
      assert.notEqual(done.status, 0, JSON.stringify(object.spec));
      assert.match(done.stderr, words);
    }
    const rows = await lab.agent<{ name: string }[]>(nodeNames.real[0], '/v1/policies');
    assert.ok(!rows.some((row) => row.name === 'malformed'));
  });

  test('a policy that Weir cannot understand isolates, allows nothing, and says what is wrong', async () => {
    await lab.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'odd' } },
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'by-hash', namespace: 'odd' },
        spec: {
          podSelector: {},
          ingress: [
            { from: [{ podSelector: { matchLabels: { 'pod-template-hash': 'abc' } } }] },
            { ports: [{ port: 80 }] },
          ],
        },
      },
    ]);
    await policiesEnforced();
    const rows = await lab.agent<{ key: string; error?: string; isolates: object }[]>(
      nodeNames.real[0],
      '/v1/policies',
    );
    const row = rows.find((each) => each.key === 'NetworkPolicy/odd/by-hash')!;
    assert.match(row.error ?? '', /pod-template-hash/);
    assert.deepEqual(row.isolates, { ingress: true, egress: false });
    const shown = await attempt([
      join(root, 'bin/weir'),
      'policy',
      'list',
      '--context',
      labName,
      '--invalid',
      '-o',
      'json',
    ]);
    assert.equal(shown.status, 0, shown.stderr);
    assert.match(shown.stdout, /by-hash/);
    assert.match(shown.stdout, /pod-template-hash/);
  });
});
