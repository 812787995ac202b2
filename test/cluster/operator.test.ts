// Two operators at once: one works and the other waits, no block is given twice, and the block of a node that is gone is
// kept while anything may still have its addresses.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startOperator, stopOperator } from '../../lab/lab.ts';
import { paths } from '../../lab/state.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { loadKubeconfig } from '../../src/kube/kubeconfig.ts';
import { type KubeObject, kubernetesResources } from '../../src/kube/resource.ts';
import { type WeirBlock, type WeirNode, weirResources } from '../../src/kube/weir/schemas.ts';
import { labName, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const repository = join(import.meta.dirname, '../..');

function until<T>(what: string, check: () => Promise<T | undefined | false>, deadlineMs = 15_000): Promise<T> {
  return waitFor(what, check, deadlineMs, 10);
}

interface Operator {
  readonly process: ChildProcess;
  lines(): { time: string; message: string; holder?: string }[];
  says(message: string): boolean;
}

describe('operator', { skip }, () => {
  let lab: SharedLab;
  let client: KubeClient;
  const running: Operator[] = [];
  const made = new Set<string>();

  function start(): Operator {
    const child = spawn(
      join(repository, 'bin/weir'),
      [
        'operator',
        `--kubeconfig=${paths.kubeconfig(labName)}`,
        '--lease-duration=1',
        '--block-rest=0.05',
        ...(lab.record.operatorOptions ?? []),
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let text = '';
    child.stderr!.setEncoding('utf8').on('data', (part) => (text += part));
    const operator: Operator = {
      process: child,
      lines: () =>
        text
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line)),
      says: (message) => operator.lines().some((line) => line.message === message),
    };
    running.push(operator);
    return operator;
  }
  async function end(operator: Operator, signal: NodeJS.Signals): Promise<void> {
    if (operator.process.exitCode !== null || operator.process.signalCode !== null) return;
    operator.process.kill(signal);
    await once(operator.process, 'exit');
  }
  const leads = (operator: Operator) => operator.says('this operator leads');
  async function node(name: string): Promise<void> {
    made.add(name);
    await client.create<KubeObject>(kubernetesResources.nodes, {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name },
    });
  }
  const blockOf = (name: string) =>
    until(`the block of ${name}`, async () => {
      const found = await client.get<WeirNode>(weirResources.nodes, name);
      return found.spec.podCIDRs.length > 0 ? found.spec.podCIDRs : undefined;
    });
  const blocks = async () => (await client.list<WeirBlock>(weirResources.blocks)).items;

  before(async () => {
    lab = await sharedLab();
    client = createKubeClient(loadKubeconfig(paths.kubeconfig(labName)));
    await stopOperator(labName);
  });
  after(async () => {
    for (const name of made) await client.delete(kubernetesResources.nodes, name).catch(() => {});
    for (const each of running) await end(each, 'SIGTERM');
    startOperator(labName);
    client.close();
  });

  test('the second waits, and takes over when the first is killed, or at once when it ends', async (t) => {
    const first = start();
    await until('the first to lead', async () => leads(first));
    const second = start();
    await until('the second to wait', async () => second.says('another operator leads: waiting'));
    assert.equal(leads(second), false);
    let beganMs = Date.now();
    await end(first, 'SIGKILL');
    await until('the second to lead', async () => leads(second));
    const afterKillMs = Date.now() - beganMs;
    const third = start();
    await until('the third to wait', async () => third.says('another operator leads: waiting'));
    beganMs = Date.now();
    await end(second, 'SIGTERM');
    await until('the third to lead', async () => leads(third));
    t.diagnostic(`after a kill ${afterKillMs} ms, after an orderly end ${Date.now() - beganMs} ms`);
    await node('made-up-0');
    assert.ok((await blockOf('made-up-0')).length > 0);
    await end(third, 'SIGTERM');
  });

  test('an operator that stood still and wakes up gives no block twice', async () => {
    const [first, second] = [start(), start()];
    await until('one to lead', async () => leads(first) || leads(second));
    const [old, young] = leads(first) ? [first, second] : [second, first];
    old.process.kill('SIGSTOP');
    for (let i = 1; i <= 10; i++) await node(`made-up-${i}`);
    await until('the other to lead', async () => leads(young));
    old.process.kill('SIGCONT');
    for (let i = 11; i <= 20; i++) await node(`made-up-${i}`);
    for (let i = 1; i <= 20; i++) await blockOf(`made-up-${i}`);
    await until('the old one to notice', async () => old.says('this operator does not lead any more'));
    const given = (await client.list<WeirNode>(weirResources.nodes)).items.flatMap((each) => each.spec.podCIDRs);
    assert.equal(new Set(given).size, given.length, given.join(' '));
    const claims = new Map((await blocks()).map((block) => [block.cidr, block.node]));
    for (const each of (await client.list<WeirNode>(weirResources.nodes)).items)
      for (const cidr of each.spec.podCIDRs) assert.equal(claims.get(cidr), each.metadata.name);
    await end(old, 'SIGTERM');
    await end(young, 'SIGTERM');
  });

  test('the block of a node that is gone is kept while a pod or a slice of it is there, and then given away', async () => {
    const operator = start();
    await until('the operator to lead', async () => leads(operator));
    await node('made-up-gone');
    const before = await blockOf('made-up-gone');
    const pod = 'made-up-pod';
    await lab.apply([
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: pod, namespace: 'default' },
        spec: { nodeName: 'made-up-gone', containers: [{ name: 'c', image: 'none' }] },
      },
      {
        apiVersion: 'weir.dev/v1alpha1',
        kind: 'WeirEndpointSlice',
        metadata: { name: 'made-up-gone-0', labels: { 'weir.dev/node': 'made-up-gone' } },
        node: 'made-up-gone',
        endpoints: [{ id: 1, namespace: 'default', pod, ipv4: before[0]!.replace('.0/24', '.9'), identity: 300 }],
      },
    ]);
    await client.delete(kubernetesResources.nodes, 'made-up-gone');
    const message = await until('a word about the pod', async () =>
      (await blocks()).find((block) => block.node === 'made-up-gone' && /1 of its pods/.test(block.message ?? '')),
    );
    await node('made-up-next');
    assert.ok(before.includes(message.cidr));
    const next = await blockOf('made-up-next');
    assert.ok(!next.some((cidr) => before.includes(cidr)), 'the block was given away');
    await lab.kubectl(['delete', 'pod', pod, '--force', '--grace-period=0']);
    await until(
      'the block to be free',
      async () => !(await blocks()).some((block) => block.node === 'made-up-gone'),
      30_000,
    );
    const slices = (await client.list<KubeObject>(weirResources.endpointSlices)).items;
    assert.ok(!slices.some((slice) => slice.metadata.name === 'made-up-gone-0'));
    await node('made-up-last');
    assert.deepEqual(await blockOf('made-up-last'), before);
    await end(operator, 'SIGTERM');
  });
});
