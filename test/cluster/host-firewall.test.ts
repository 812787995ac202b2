// Policies for nodes in a real cluster: what they report while auditing, what they cut when enforced, and that a node stays
// a node under a default deny, with its agent dead as well.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { inNode, startAgent, stopAgent, waitForAgent, worldExec } from '../../lab/lab.ts';
import type { HostFirewallView } from '../../src/programs/agent/host-firewall-view.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const [node = ''] = nodeNames.real;
const label = 'weir-test/guarded';
/** Longer than the control plane waits for a node that says nothing any more. */
const graceMs = 50_000;

/** Listens on ports in both families until it is ended. */
const listener = `
const net = require('node:net');
for (const port of process.argv.slice(1)) net.createServer((socket) => socket.on('error', () => {}).end('hello')).listen(Number(port), '::');
process.stdin.resume().on('end', () => process.exit());
`;

/** Says of each address and port how connecting went. */
const caller = `
const net = require('node:net');
const [ports, ...addresses] = process.argv.slice(1);
const one = (address, port) => new Promise((resolve) => {
  const socket = net.connect({ host: address, port: Number(port), timeout: 700 });
  socket.on('connect', () => { socket.destroy(); resolve('ok'); });
  socket.on('timeout', () => { socket.destroy(); resolve('silent'); });
  socket.on('error', (error) => resolve(error.code));
});
(async () => {
  const all = {};
  for (const port of ports.split(',')) {
    const found = new Set(await Promise.all(addresses.map((address) => one(address, port))));
    all[port] = [...found].sort().join('/');
  }
  console.log(JSON.stringify(all));
})();
`;

const policy = (name: string, spec: object) => ({
  apiVersion: 'cilium.io/v2',
  kind: 'CiliumClusterwideNetworkPolicy',
  metadata: { name },
  spec: { nodeSelector: { matchLabels: { [label]: 'yes' } }, ...spec },
});
const tcp = (port: number) => [{ ports: [{ port: String(port), protocol: 'TCP' }] }];
const sshAndCluster = policy('guard-ssh', {
  ingress: [{ fromEntities: ['cluster'] }, { fromEntities: ['world'], toPorts: tcp(2022) }],
});
const nothing = policy('guard-nothing', { ingress: [{}], egress: [{}] });

interface AuditedFlow {
  readonly verdict: string;
  readonly traffic_direction: string;
  readonly destination: { readonly labels: readonly string[] };
  readonly ingress_denied_by: readonly { readonly name: string }[];
}

describe('host firewall', { skip }, () => {
  let lab: SharedLab;
  let server: ChildProcess | undefined;
  let addresses: string[] = [];

  async function mode(wanted: HostFirewallView['mode']): Promise<void> {
    await stopAgent(labName, node, 'ask');
    await startAgent(labName, node, [`--host-firewall=${wanted}`]);
    await waitForAgent(labName, node);
    await settled();
  }
  async function settled(names?: readonly string[]): Promise<void> {
    await waitFor(
      'the agent to have it in the kernel',
      async () => {
        const { synced, pending } = await lab.agent<{ synced: boolean; pending: boolean }>(node, '/v1/sync');
        if (!synced || pending) return undefined;
        if (names === undefined) return true;
        const { policies } = await firewall();
        return (
          policies
            .map((each) => each.split('/')[1])
            .sort()
            .join() === [...names].sort().join() || undefined
        );
      },
      20_000,
      50,
    );
  }
  const firewall = () => lab.agent<HostFirewallView>(node, '/v1/host-firewall');
  async function policies(...wanted: (typeof nothing)[]): Promise<void> {
    for (const each of [sshAndCluster, nothing])
      if (!wanted.includes(each)) await lab.kubectl(['delete', 'ccnp', each.metadata.name, '--ignore-not-found']);
    if (wanted.length > 0) await lab.apply(wanted);
    await settled(wanted.map((each) => each.metadata.name));
  }
  async function world(...ports: number[]): Promise<Record<string, string>> {
    const { stdout, stderr } = await worldExec(labName, [process.execPath, '-e', caller, ports.join(), ...addresses]);
    assert.notEqual(stdout, '', stderr);
    return JSON.parse(stdout) as Record<string, string>;
  }
  const hooks = async () =>
    (await lab.agent<{ attachments: { name: string }[] }>(node, '/v1/status')).attachments
      .map((each) => each.name)
      .filter((name) => name.startsWith('guard-'));
  const isReady = async () => (await lab.status()).nodes.find((each) => each.name === node)?.ready === true;
  /** While its agent starts again, kubelet may find no network and say so until it asks the next time. */
  const turnsReady = () => waitFor('the node to be ready', async () => (await isReady()) || undefined, 30_000, 500);

  before(async () => {
    lab = await sharedLab();
    await lab.kubectl(['label', 'node', node, `${label}=yes`, '--overwrite']);
    const shown = await lab.kubectl(['get', 'node', node, '-o', 'json']);
    const { status } = JSON.parse(shown) as { status: { addresses: { type: string; address: string }[] } };
    addresses = status.addresses.filter((each) => each.type === 'InternalIP').map((each) => each.address);
    const [program = '', ...args] = inNode(labName, node, [process.execPath, '-e', listener, '2022', '8088']);
    server = spawn(program, args, { stdio: ['pipe', 'inherit', 'inherit'] });
    await waitFor('the node to listen', async () => (await world(8088))[8088] === 'ok' || undefined, 10_000);
  });
  after(async () => {
    server?.stdin?.end();
    if (lab === undefined) return;
    await lab.kubectl(['delete', 'ccnp', 'guard-ssh', 'guard-nothing', '--ignore-not-found']);
    await lab.kubectl(['label', 'node', node, `${label}-`]);
    await stopAgent(labName, node, 'ask');
    await startAgent(labName, node);
    await waitForAgent(labName, node);
  });

  test('audit is the default: nothing is cut, and what would be is told with the policy', async () => {
    assert.deepEqual(await hooks(), [], 'without a policy for the node there is nothing to look at');
    await policies(sshAndCluster);
    assert.notEqual((await hooks()).length, 0);
    assert.deepEqual(await world(2022, 8088), { 2022: 'ok', 8088: 'ok' });
    const { mode: is, denials } = await firewall();
    assert.equal(is, 'audit');
    const seen = denials.filter((row) => row.port === 8088 && row.direction === 'ingress');
    assert.ok(
      seen.some((row) => row.what === 'seen' || row.what === 'listening'),
      JSON.stringify(denials),
    );
    assert.deepEqual([...new Set(seen.flatMap((row) => row.policies))], ['guard-ssh']);
    assert.ok(!denials.some((row) => row.port === 2022 || row.what === 'open'), JSON.stringify(denials));
    const weir = fileURLToPath(new URL('../../bin/weir', import.meta.url));
    const asked = [
      'observe',
      '--context',
      labName,
      '--node',
      node,
      '--verdict',
      'audit',
      '--port',
      '8088',
      '-o',
      'json',
    ];
    const flows = await waitFor(
      'flows that name the policy',
      async () => {
        const lines = execFileSync(weir, [...asked, '--last', '20'])
          .toString()
          .trim()
          .split('\n')
          .filter(Boolean);
        return lines.length > 0 ? lines : undefined;
      },
      10_000,
    );
    for (const line of flows) {
      const { flow } = JSON.parse(line) as { flow: AuditedFlow };
      assert.equal(flow.verdict, 'AUDIT');
      assert.equal(flow.traffic_direction, 'INGRESS');
      assert.deepEqual(flow.destination.labels, ['reserved:host']);
      assert.equal(flow.ingress_denied_by[0]?.name, 'guard-ssh');
    }
  });

  test('enforced: the world reaches what it may and nothing else, the cluster everything', async () => {
    await mode('enforce');
    assert.deepEqual(await world(2022, 8088, 10_250), { 2022: 'ok', 8088: 'silent', 10250: 'silent' });
    await turnsReady();
  });

  test('a node under a default deny stays ready, answers its API server and probes its pods', async () => {
    await policies(nothing);
    assert.deepEqual(await world(2022, 8088), { 2022: 'silent', 8088: 'silent' });
    await sleep(graceMs);
    assert.ok(await isReady());
    const logs = await lab.kubectl(['get', '--raw', `/api/v1/nodes/${node}/proxy/healthz`]);
    assert.equal(logs.trim(), 'ok');
  });

  test('a dead agent changes nothing', async () => {
    await policies(sshAndCluster, nothing);
    const before = await world(2022, 8088);
    assert.deepEqual(before, { 2022: 'ok', 8088: 'silent' });
    await stopAgent(labName, node, 'kill');
    assert.deepEqual(await world(2022, 8088), before);
    await startAgent(labName, node, ['--host-firewall=enforce']);
    await waitForAgent(labName, node);
    await settled();
    assert.deepEqual(await world(2022, 8088), before);
    await turnsReady();
  });

  test('switched back, nothing is cut, and off leaves no hook behind', async () => {
    assert.notEqual((await hooks()).length, 0);
    await mode('off');
    assert.deepEqual(await world(2022, 8088), { 2022: 'ok', 8088: 'ok' });
    assert.deepEqual(await hooks(), []);
    await mode('audit');
    assert.deepEqual(await world(2022, 8088), { 2022: 'ok', 8088: 'ok' });
    assert.notEqual((await hooks()).length, 0);
    await policies();
    assert.deepEqual(await hooks(), []);
  });
});
