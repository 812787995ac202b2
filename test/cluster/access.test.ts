// Tenants at the relay of a real cluster: tokens of service accounts, a role for one, a FlowAccess for the other, traffic
// between them, and what neither is to learn of the other.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createPrivateKey, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { attempt, buildFlowClient, type LabStatus, terminalProgress } from '../../lab/lab.ts';
import { paths, repository } from '../../lab/state.ts';
import { folderStore } from '../../src/programs/certs/certificate-stores.ts';
import { issueCertificates } from '../../src/programs/certs/issue-certificates.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const [near, far] = nodeNames.bare;
const weir = join(repository, 'bin/weir');

interface Flow {
  uuid: string;
  source: { namespace?: string; pod_name?: string; labels?: string[] };
  destination: { namespace?: string; pod_name?: string; labels?: string[] };
  IP: { source: string; destination: string };
  extensions?: Record<string, unknown>;
}

const grant = (name: string, spec: object) => ({
  apiVersion: 'weir.dev/v1alpha1',
  kind: 'FlowAccess',
  metadata: { name },
  spec,
});
const rbac = 'rbac.authorization.k8s.io';

describe('who may see what at the relay', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-access-'));
  const file = (name: string) => join(folder, name);
  let lab: SharedLab;
  let scene: Scene;
  let relay: LabStatus['relay'];
  let netns = '';
  let tls: string[] = [];

  async function token(namespace: string): Promise<string[]> {
    const text = await lab.kubectl(['create', 'token', 'reader', '-n', namespace]);
    return given(namespace, text.trim());
  }
  function given(name: string, text: string): string[] {
    writeFileSync(file(`${name}.token`), text);
    return ['--token-file', file(`${name}.token`)];
  }
  const command = (args: readonly string[], who: readonly string[]) => [
    ...['nsenter', `--net=${netns}`, '--', weir, ...args, '--server', `tls://${relay.addresses[0]}`, ...tls, ...who],
  ];
  const asked = (args: readonly string[], who: readonly string[]) => attempt(command(args, who));
  async function output(args: readonly string[], who: readonly string[]): Promise<string> {
    const done = await asked(args, who);
    assert.equal(done.status, 0, `${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  }
  const parsed = (text: string): Flow[] =>
    text
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { flow?: Flow }).flow ?? []);
  const seen = async (who: readonly string[], ...filters: string[]) =>
    parsed(await output(['observe', '--all', '-o', 'json', ...filters], who));
  async function refused(who: readonly string[], why: RegExp): Promise<void> {
    const done = await asked(['observe', '--last', '1'], who);
    assert.notEqual(done.status, 0);
    assert.match(done.stderr, why);
  }
  const client = (name: string) => [
    ...['--tls-client-cert-file', file(`client-${name}.crt`), '--tls-client-key-file', file(`client-${name}.key`)],
  ];

  before(async () => {
    lab = await sharedLab();
    const status = await lab.status();
    relay = status.relay;
    netns = status.controlPlane.netns;
    tls = ['--tls-ca-cert-files', relay.caFile, '--tls-server-name', relay.serverName];
    scene = await createScene(lab, 'red', { blue: { tenant: 'blue' }, grey: {} });
    await lab.apply([
      ...['red', 'blue', 'grey'].map((namespace) => ({
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: 'reader', namespace },
      })),
      {
        apiVersion: `${rbac}/v1`,
        kind: 'Role',
        metadata: { name: 'flows', namespace: 'red' },
        rules: [{ apiGroups: ['weir.dev'], resources: ['flows'], verbs: ['get'] }],
      },
      {
        apiVersion: `${rbac}/v1`,
        kind: 'RoleBinding',
        metadata: { name: 'flows', namespace: 'red' },
        roleRef: { apiGroup: rbac, kind: 'Role', name: 'flows' },
        subjects: [{ kind: 'ServiceAccount', name: 'reader', namespace: 'red' }],
      },
      grant('blue', {
        subjects: [{ kind: 'ServiceAccount', name: 'reader', namespace: 'blue' }],
        namespaceSelector: { matchLabels: { tenant: 'blue' } },
        verbs: ['flows', 'processes'],
        redactions: ['addresses-of-others'],
      }),
    ]);
    await scene.add({ node: near, name: 'web-of-red', labels: { app: 'web-of-red' } });
    await scene.add({ node: far, name: 'db-of-blue', namespace: 'blue', labels: { app: 'db-of-blue' } });
    await scene.add({ node: near, name: 'grey-one', namespace: 'grey' });
    await scene.add({ node: far, name: 'grey-two', namespace: 'grey' });
    await scene.settled();
    assert.equal(await scene.probe('web-of-red', 'db-of-blue', 80), 'ok');
    assert.equal(await scene.probe('db-of-blue', 'web-of-red', 80), 'ok');
    assert.equal(await scene.probe('grey-one', 'grey-two', 80), 'ok');
    // Users of the lab's own authority for clients: certificates of others are let in as nobody.
    const pki = join(paths.pki(labName), 'flows');
    for (const name of ['ca.crt', 'ca.key', 'client-ca.crt', 'client-ca.key'])
      writeFileSync(file(name), readFileSync(join(pki, name)));
    await issueCertificates(folderStore(folder), {
      nodes: [],
      cluster: 'default',
      relayNames: [],
      clients: [{ name: 'ann', groups: ['painters'] }, { name: 'nobody' }, { name: 'root', groups: ['weir:admins'] }],
      days: 1,
      renewDays: 0,
    });
    await waitFor(
      'flows of both to be there',
      async () => {
        const all = await seen(client('root'));
        return ['red', 'blue', 'grey'].every((name) => all.some((flow) => flow.source.namespace === name)) || undefined;
      },
      20_000,
      500,
    );
  });
  after(async () => {
    await lab?.kubectl(['delete', 'flowaccess', 'blue', 'painters', 'grey', '--ignore-not-found']);
    await scene?.close();
    rmSync(folder, { recursive: true });
  });

  test('a tenant by role and one by FlowAccess see their own side of what they say to each other', async () => {
    for (const [own, other, redacted] of [
      ['red', 'blue', false],
      ['blue', 'red', true],
    ] as const) {
      const flows = await seen(await token(own));
      assert.ok(
        flows.some((flow) => flow.source.namespace === own && flow.destination.labels?.includes('reserved:cluster')),
      );
      assert.ok(
        flows.some((flow) => flow.destination.namespace === own && flow.source.labels?.includes('reserved:cluster')),
      );
      for (const flow of flows) {
        const ends = [flow.source.namespace, flow.destination.namespace];
        assert.ok(ends.includes(own), JSON.stringify(flow));
        assert.doesNotMatch(JSON.stringify(flow), new RegExp(`of-${other}|grey|"${other}"|=${other}`));
      }
      const others = flows.flatMap(({ source, destination, IP }) => [
        ...(source.namespace === own ? [] : [IP.source]),
        ...(destination.namespace === own ? [] : [IP.destination]),
      ]);
      assert.equal(
        others.every((address) => (address ?? '') === ''),
        redacted,
      );
      const processes = flows.flatMap((flow) =>
        Object.keys((flow.extensions?.value as object) ?? flow.extensions ?? {}),
      );
      assert.equal(
        processes.some((key) => key.endsWith('_process')),
        redacted,
        'only one may see processes',
      );
    }
  });

  test('filters find nothing of what is hidden, and counts are of what is shown', async () => {
    const red = await token('red');
    for (const filter of [
      ['--to-pod', 'blue/'],
      ['--to-label', 'app=db-of-blue'],
      ['--pod', 'grey/'],
    ])
      assert.deepEqual(await seen(red, ...filter), [], filter.join(' '));
    const mine = await seen(red, '--to-port', '80');
    assert.ok(mine.length > 2);
    const until = new Date().toISOString();
    const last = parsed(await output(['observe', '--last', '2', '--until', until, '-o', 'json'], red));
    const all = await seen(red, '--until', until);
    assert.deepEqual(
      last.map((flow) => flow.uuid),
      all.slice(-2).map((flow) => flow.uuid),
    );
    const first = parsed(await output(['observe', '--first', '2', '-o', 'json'], red));
    assert.deepEqual(
      first.map((flow) => flow.uuid),
      all.slice(0, 2).map((flow) => flow.uuid),
    );
    const { status, nodes } = JSON.parse(await output(['status', '-o', 'json'], red));
    assert.deepEqual([status.numFlows, status.seenFlows, status.flowsRate], [undefined, undefined, undefined]);
    assert.ok(nodes.length >= 2);
    assert.deepEqual(Object.keys(nodes[0]).sort(), ['name', 'state']);
    const everything = JSON.parse(await output(['status', '-o', 'json'], client('root')));
    assert.ok(Number(everything.status.numFlows) > all.length);
  });

  test('who is not known, or may see nothing, is told what is missing', async () => {
    await refused([], /nobody is known/);
    await refused(given('wrong', 'not.a.token'), /the token is not valid/);
    await refused(await token('grey'), /user "system:serviceaccount:grey:reader" may see no namespace; grant it/);
    await refused(client('nobody'), /user "nobody" may see no namespace/);
    // As Kubernetes would have signed it, an hour ago.
    const [head, body] = readFileSync(file('grey.token'), 'utf8').split('.') as [string, string];
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString());
    const hourAgo = Math.floor(Date.now() / 1000) - 3_600;
    const old = { ...claims, iat: hourAgo - 60, nbf: hourAgo - 60, exp: hourAgo };
    const signed = `${head}.${Buffer.from(JSON.stringify(old)).toString('base64url')}`;
    const key = createPrivateKey(readFileSync(join(paths.pki(labName), 'service-accounts.key')));
    const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
    await refused(given('expired', `${signed}.${signature}`), /the token is not valid/);
    const log = readFileSync(relay.log, 'utf8');
    assert.match(log, /access is refused.*system:serviceaccount:grey:reader/);
    assert.ok(!log.includes(signature) && !log.includes(body), 'a token is in the log');
  });

  test('a certificate says who a user is and in which groups; administrators see everything', async () => {
    await refused(client('ann'), /user "ann" may see no namespace/);
    await lab.apply([
      grant('painters', { subjects: [{ kind: 'Group', name: 'painters' }], namespaces: ['grey'], verbs: ['flows'] }),
    ]);
    await waitFor(
      'the grant to be known',
      async () => (await asked(['observe', '--last', '1'], client('ann'))).status === 0 || undefined,
      5_000,
    );
    for (const flow of await seen(client('ann')))
      assert.ok([flow.source.namespace, flow.destination.namespace].includes('grey'));
    const all = await seen(client('root'));
    assert.ok(all.some((flow) => flow.source.pod_name === 'web-of-red' && flow.destination.pod_name === 'db-of-blue'));
  });

  test('the stock client reads as a tenant, with a token for a password', async (t) => {
    let hubble: string;
    try {
      hubble = await buildFlowClient(terminalProgress());
    } catch (error) {
      return t.skip(`the stock client could not be built here: ${(error as Error).message}`);
    }
    await token('red');
    const done = await attempt([
      ...['nsenter', `--net=${netns}`, '--', hubble, 'observe', '--all', '-o', 'json', ...tls],
      ...['--server', `tls://${relay.addresses[0]}`],
      ...['--basic-auth-username', 'token', '--basic-auth-password', readFileSync(file('red.token'), 'utf8')],
    ]);
    assert.equal(done.status, 0, done.stderr);
    const flows = parsed(done.stdout);
    assert.ok(flows.length > 0);
    for (const flow of flows) assert.ok([flow.source.namespace, flow.destination.namespace].includes('red'));
  });

  describe('a running stream', () => {
    const running: ChildProcess[] = [];
    after(() => {
      for (const each of running) each.kill();
    });
    function follow(who: readonly string[]) {
      const [program, ...args] = command(['observe', '-f', '-o', 'json'], who);
      const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      running.push(child);
      const stream = { text: '', errors: '', code: undefined as number | null | undefined };
      child.stdout.on('data', (part) => (stream.text += part));
      child.stderr.on('data', (part) => (stream.errors += part));
      child.on('exit', (code) => (stream.code = code));
      return stream;
    }

    test('gets what a new grant shows and loses what is taken away, within seconds', async () => {
      const stream = follow(await token('red'));
      await waitFor('the stream', async () => stream.text.includes('CONNECTED') || undefined, 10_000);
      await scene.probe('web-of-red', 'db-of-blue', 80);
      await waitFor('its own flows', async () => stream.text.includes('web-of-red') || undefined, 10_000);
      assert.ok(!stream.text.includes('grey-one'));
      await lab.apply([
        grant('grey', {
          subjects: [{ kind: 'ServiceAccount', name: 'reader', namespace: 'red' }],
          namespaces: ['grey'],
          verbs: ['flows'],
        }),
      ]);
      await waitFor(
        'flows of the new namespace',
        async () => {
          await scene.probe('grey-one', 'grey-two', 80);
          return stream.text.includes('grey-one') || undefined;
        },
        10_000,
        200,
      );
      await lab.kubectl(['delete', 'flowaccess', 'grey']);
      await lab.kubectl(['delete', 'rolebinding', 'flows', '-n', 'red']);
      await waitFor('the end', async () => stream.code !== undefined || undefined, 20_000);
      assert.match(stream.errors, /may see no namespace/);
    });

    test('ends when its token is revoked', async () => {
      const stream = follow(await token('blue'));
      await waitFor('the stream', async () => stream.text.includes('CONNECTED') || undefined, 10_000);
      await lab.kubectl(['delete', 'serviceaccount', 'reader', '-n', 'blue']);
      await waitFor('the end', async () => stream.code !== undefined || undefined, 30_000);
      assert.match(stream.errors, /the token is not valid/);
    });
  });
});
