// The CNI specification's protocol, as cnitool speaks it, against the installed plugin and a running agent: all versions
// and commands, their results, and everything that can be wrong. https://www.cni.dev/docs/spec/
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CommandResult, nodeExec, startAgent, stopAgent, waitForAgent } from '../../lab/lab.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const node = nodeNames.bare[1];
const namespace = 'cni';
const versions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

interface Interface {
  name: string;
  mac: string;
  mtu?: number;
  sandbox?: string;
}
interface Result {
  cniVersion: string;
  interfaces: Interface[];
  ips: { version?: string; address: string; gateway: string; interface: number }[];
  routes: { dst: string; gw: string }[];
  code?: number;
  msg?: string;
}
interface Container {
  readonly id: string;
  readonly pod: string;
  readonly netns: string;
}

describe('CNI', { skip }, () => {
  let lab: SharedLab;
  const containers: Container[] = [];

  before(async () => {
    lab = await sharedLab();
    await lab.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }]);
  });
  after(async () => {
    await startAgent(labName, node);
    await waitForAgent(labName, node);
    for (const each of containers) {
      await plugin('DEL', { container: each });
      await nodeExec(labName, node, ['ip', 'netns', 'delete', netnsName(each)]);
    }
    await lab?.kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']);
    await lab?.kubectl(['delete', 'pods', '-n', namespace, '--all', '--force', '--grace-period=0']);
  });

  const netnsName = (container: Container) => container.netns.slice('/run/netns/'.length);

  /** A container of a pod that the API server knows. */
  async function container(name: string): Promise<Container> {
    const id = randomBytes(16).toString('hex');
    const made = { id, pod: name, netns: `/run/netns/cni-${name}` };
    await waitFor(
      'the pod to be accepted',
      async () => {
        await lab.api.create(`/api/v1/namespaces/${namespace}/pods`, {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name, namespace, labels: { app: name } },
          spec: { nodeName: node, containers: [{ name: 'main', image: 'none' }], automountServiceAccountToken: false },
        });
        return true;
      },
      20_000,
    );
    await nodeExec(labName, node, ['ip', 'netns', 'add', netnsName(made)]);
    containers.push(made);
    return made;
  }

  /** Calls the plugin; `env` overrides what a runtime would set, undefined takes a variable away. */
  async function plugin(
    command: string,
    options: {
      container?: Container;
      version?: string;
      config?: Record<string, unknown> | string;
      env?: Record<string, string | undefined>;
    } = {},
  ): Promise<CommandResult & { json: Result }> {
    const { container: of, version = '1.1.0', config = {} } = options;
    const env: Record<string, string | undefined> = {
      CNI_COMMAND: command,
      CNI_PATH: '/opt/cni/bin',
      ...(of === undefined
        ? {}
        : {
            CNI_CONTAINERID: of.id,
            CNI_NETNS: of.netns,
            CNI_IFNAME: 'eth0',
            CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${of.pod}`,
          }),
      ...options.env,
    };
    const set = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
    const stdin =
      typeof config === 'string'
        ? config
        : JSON.stringify({ cniVersion: version, name: 'weir', type: 'weir-cni', ...config });
    const done = await nodeExec(labName, node, ['env', '-i', ...set, '/opt/cni/bin/weir-cni'], {
      stdin,
      timeoutMs: 30_000,
    });
    return { ...done, json: (done.stdout.trim() === '' ? {} : JSON.parse(done.stdout)) as Result };
  }
  const addressesOf = (result: Result) => result.ips.map((each) => each.address.split('/')[0]!);
  const devices = async () => (await nodeExec(labName, node, ['ls', '/sys/class/net'])).stdout;
  const endpoints = async () =>
    (await lab.agent<{ containerId: string }[]>(node, '/v1/endpoints')).map((row) => row.containerId);

  async function refused(done: CommandResult & { json: Result }, code: number, words: RegExp): Promise<void> {
    assert.equal(done.status, 1, done.stdout);
    assert.equal(done.json.code, code, done.stdout);
    assert.match(done.json.msg ?? '', words);
    assert.ok(done.json.cniVersion, 'errors carry a version');
  }

  test('VERSION names every version that is spoken', async () => {
    const done = await plugin('VERSION');
    assert.equal(done.status, 0);
    assert.deepEqual(JSON.parse(done.stdout), { cniVersion: '1.1.0', supportedVersions: versions });
  });

  for (const version of versions) {
    test(`ADD, CHECK and DEL in version ${version}`, async () => {
      const own = await container(`version-${version.replaceAll('.', '-')}`);
      const added = await plugin('ADD', { container: own, version });
      assert.equal(added.status, 0, added.stdout);
      const { json } = added;
      assert.equal(json.cniVersion, version);
      const [host, inside] = json.interfaces;
      assert.equal(json.interfaces.length, 2);
      assert.match(host!.name, /^weir\d+$/);
      assert.equal(host!.sandbox, undefined);
      assert.equal(inside!.name, 'eth0');
      assert.equal(inside!.sandbox, own.netns);
      assert.equal(typeof inside!.mtu, version === '1.1.0' ? 'number' : 'undefined');
      assert.deepEqual(
        json.ips.map((ip) => [ip.version, ip.gateway, ip.interface, ip.address.split('/')[1]]),
        [
          [version < '1' ? '4' : undefined, '169.254.1.1', 1, '32'],
          [version < '1' ? '6' : undefined, 'fe80::1', 1, '128'],
        ],
      );
      assert.deepEqual(json.routes, [
        { dst: '0.0.0.0/0', gw: '169.254.1.1' },
        { dst: '::/0', gw: 'fe80::1' },
      ]);
      const shown = await nodeExec(labName, node, ['ip', '-n', netnsName(own), '-j', 'address', 'show', 'dev', 'eth0']);
      const link = JSON.parse(shown.stdout)[0] as { address: string; addr_info: { local: string }[] };
      assert.equal(link.address, inside!.mac);
      for (const address of addressesOf(json))
        assert.ok(
          link.addr_info.some((each) => each.local === address),
          address,
        );

      const checked = await plugin('CHECK', { container: own, version, config: { prevResult: json } });
      assert.equal(checked.status, 0, checked.stdout);
      for (let i = 0; i < 2; i++) {
        const deleted = await plugin('DEL', { container: own, version, config: { prevResult: json } });
        assert.deepEqual([deleted.status, deleted.stdout], [0, ''], 'DEL succeeds, the second time too');
      }
      const late = await plugin('CHECK', { container: own, version, config: { prevResult: json } });
      await refused(late, 3, /no such attachment/);
    });
  }

  test('a plugin before ours is kept in front of the result', async () => {
    const own = await container('chained');
    const prevResult = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'other0', mac: '02:00:00:00:00:01' }],
      ips: [{ address: '192.0.2.7/24', interface: 0 }],
      routes: [{ dst: '192.0.2.0/24' }],
      dns: { nameservers: ['192.0.2.53'] },
    };
    const { json } = await plugin('ADD', { container: own, config: { prevResult } });
    assert.deepEqual(json.interfaces.map((each) => each.name).slice(0, 1), ['other0']);
    assert.equal(json.interfaces.length, 3);
    assert.deepEqual(
      json.ips.map((ip) => ip.interface),
      [0, 2, 2],
    );
    assert.deepEqual((json as unknown as { dns: unknown }).dns, prevResult.dns);
  });

  test('two ADDs of one container, one after another and at once, are one attachment', async () => {
    const own = await container('twice');
    const first = await plugin('ADD', { container: own });
    const again = await plugin('ADD', { container: own });
    assert.deepEqual(again.json, first.json);
    await plugin('DEL', { container: own });
    const both = await Promise.all([plugin('ADD', { container: own }), plugin('ADD', { container: own })]);
    assert.deepEqual(both[0].json, both[1].json);
    assert.equal((await endpoints()).filter((id) => id === own.id).length, 1);
  });

  test('what is missing or malformed is named, and nothing is left behind', async () => {
    const own = await container('wrong');
    const before = await devices();
    const add = (env: Record<string, string | undefined>) => plugin('ADD', { container: own, env });
    await refused(await add({ CNI_CONTAINERID: undefined }), 4, /CNI_CONTAINERID/);
    await refused(await add({ CNI_CONTAINERID: '../x' }), 4, /CNI_CONTAINERID/);
    await refused(await add({ CNI_IFNAME: undefined }), 4, /CNI_IFNAME/);
    await refused(await add({ CNI_IFNAME: 'a-name-that-is-too-long' }), 4, /CNI_IFNAME/);
    await refused(await add({ CNI_IFNAME: 'a/b' }), 4, /CNI_IFNAME/);
    await refused(await add({ CNI_NETNS: undefined }), 4, /CNI_NETNS/);
    await refused(await add({ CNI_NETNS: '/run/netns/nobody-made-this' }), 3, /namespace/);
    await refused(await add({ CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=nobody` }), 11, /not known here/);
    await refused(await plugin('JUMP', { container: own }), 4, /CNI_COMMAND/);
    await refused(await plugin('ADD', { container: own, config: '{"cniVersion": ' }), 6, /not JSON/);
    await refused(await plugin('ADD', { container: own, config: '[]' }), 7, /wrong/);
    await refused(await plugin('ADD', { container: own, config: { name: '' } }), 7, /"name"/);
    await refused(await plugin('ADD', { container: own, config: { mtu: 'many' } }), 7, /"mtu"/);
    await refused(await plugin('ADD', { container: own, config: { mtu: 70_000 } }), 7, /"mtu"/);
    await refused(await plugin('ADD', { container: own, version: '0.2.0' }), 1, /0\.2\.0/);
    await refused(await plugin('ADD', { container: own, version: '2.0.0' }), 1, /2\.0\.0/);
    await refused(await plugin('GC', { version: '1.0.0' }), 1, /GC/);
    const none = await nodeExec(labName, node, ['env', '-i', '/opt/cni/bin/weir-cni'], { stdin: '' });
    assert.equal(JSON.parse(none.stdout).code, 4);
    assert.ok(!(await endpoints()).includes(own.id));
    assert.equal(await devices(), before);
  });

  test('an interface that is there already is not touched', async () => {
    const own = await container('taken');
    const inPod = (...argv: string[]) => nodeExec(labName, node, ['ip', '-n', netnsName(own), ...argv]);
    const made = await inPod(
      'link',
      'add',
      'eth0',
      'address',
      '02:00:00:00:00:02',
      'type',
      'veth',
      'peer',
      'name',
      'other',
    );
    assert.equal(made.status, 0, made.stderr);
    await refused(await plugin('ADD', { container: own }), 103, /exists in the pod already/);
    assert.match((await inPod('link', 'show', 'eth0')).stdout, /02:00:00:00:00:02/);
    assert.ok(!(await endpoints()).includes(own.id));
  });

  test('CHECK sees what somebody has broken', async () => {
    const own = await container('broken');
    const { json } = await plugin('ADD', { container: own });
    const check = () => plugin('CHECK', { container: own, config: { prevResult: json } });
    const inPod = (...argv: string[]) => nodeExec(labName, node, ['ip', '-n', netnsName(own), ...argv]);
    assert.equal((await check()).status, 0);
    await refused(
      await plugin('CHECK', {
        container: own,
        config: { prevResult: { ...json, ips: [{ address: '192.0.2.1/32' }] } },
      }),
      7,
      /prevResult/,
    );
    await inPod('route', 'delete', 'default');
    await refused(await check(), 103, /default route/);
    await inPod('address', 'flush', 'dev', 'eth0');
    await refused(await check(), 103, /address .* is gone/);
    await inPod('link', 'delete', 'eth0');
    await refused(await check(), 103, /gone/);
    assert.equal((await plugin('ADD', { container: own })).status, 0, 'ADD mends it');
  });

  test('DEL when the namespace has gone, or with no namespace named', async () => {
    const own = await container('gone');
    await plugin('ADD', { container: own });
    await nodeExec(labName, node, ['ip', 'netns', 'delete', netnsName(own)]);
    assert.equal((await plugin('DEL', { container: own, env: { CNI_NETNS: undefined } })).status, 0);
    assert.ok(!(await endpoints()).includes(own.id));
    const unknown = { id: 'f'.repeat(32), pod: 'nobody', netns: '/run/netns/nobody' };
    assert.equal((await plugin('DEL', { container: unknown })).status, 0);
  });

  test('GC removes what is not in its list, and nothing else', async () => {
    const kept = await container('kept');
    const stale = await container('stale');
    for (const each of [kept, stale]) assert.equal((await plugin('ADD', { container: each })).status, 0);
    const valid = (await endpoints())
      .filter((id) => id !== stale.id)
      .map((id) => ({ containerID: id, ifname: 'eth0' }));
    const done = await plugin('GC', { config: { 'cni.dev/valid-attachments': valid } });
    assert.equal(done.status, 0, done.stdout);
    const left = await endpoints();
    assert.ok(left.includes(kept.id));
    assert.ok(!left.includes(stale.id));
  });

  test('a freed address is not handed out again at once', async () => {
    const own = await container('rest');
    const seen = new Set<string>();
    for (let i = 0; i < 8; i++) {
      const { json } = await plugin('ADD', { container: own });
      for (const address of addressesOf(json)) {
        assert.ok(!seen.has(address), `${address} again`);
        seen.add(address);
      }
      await plugin('DEL', { container: own });
    }
  });

  test('while the agent is down: ADD and CHECK say try again, STATUS not available, DEL is written down and done', async () => {
    const own = await container('meanwhile');
    const { json } = await plugin('ADD', { container: own });
    assert.equal((await plugin('STATUS')).status, 0);
    await stopAgent(labName, node, 'kill');
    await refused(await plugin('ADD', { container: own }), 11, /try again later/);
    await refused(await plugin('CHECK', { container: own, config: { prevResult: json } }), 11, /try again later/);
    await refused(await plugin('STATUS'), 50, /does not answer/);
    assert.equal((await plugin('VERSION')).status, 0);
    for (let i = 0; i < 2; i++) assert.equal((await plugin('DEL', { container: own })).status, 0);
    await refused(await plugin('DEL', { container: own, env: { CNI_CONTAINERID: '../../x' } }), 4, /CNI_CONTAINERID/);
    const { folders } = (await lab.status()).nodes.find((each) => each.name === node)!;
    assert.deepEqual(readdirSync(join(folders.state, 'cni-deletes')), [`${own.id}-eth0`]);
    await startAgent(labName, node);
    await waitForAgent(labName, node);
    await waitFor('the deletion to be done', async () => !(await endpoints()).includes(own.id), 10_000);
    assert.deepEqual(readdirSync(join(folders.state, 'cni-deletes')), []);
    await waitFor('STATUS to be well', async () => (await plugin('STATUS')).status === 0, 10_000);
  });
});
