// The cluster's name server is a service like any other: pods of every node ask it while agents die and start again, and
// while pods of the name server are replaced, and no answer is missing.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { podCommand, programFile, startAgent, stopAgent, waitForAgent } from '../../lab/lab.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { askSteadily, type Steady } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const asker = readFileSync(fileURLToPath(new URL('ask-names.py', import.meta.url)), 'utf8');
const name = 'kubernetes.default.svc.cluster.local';

describe('the name server', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  let addresses: string[] = [];
  const askers = new Map<string, Steady>();

  before(async () => {
    lab = await sharedLab();
    scene = await createScene(lab, 'names');
    const service = await lab.api.get('/api/v1/namespaces/kube-system/services/kube-dns');
    addresses = service.spec.clusterIPs;
    const ask = ['python3', '-c', asker, name, ...addresses];
    for (const node of nodeNames.bare) {
      const pod = await scene.add({ node, name: `asker-${node}` });
      askers.set(node, askSteadily(podCommand(lab.record, pod, ask)));
    }
    const kubectl = [programFile('kubectl'), `--kubeconfig=${lab.kubeconfig}`, '--namespace=names'];
    for (const node of nodeNames.real) {
      const container = { name: 'main', image: 'weir.local/toolbox:dev', imagePullPolicy: 'Never' };
      const spec = { nodeName: node, terminationGracePeriodSeconds: 0, containers: [container] };
      await lab.apply([
        { apiVersion: 'v1', kind: 'Pod', metadata: { name: `asker-${node}`, namespace: 'names' }, spec },
      ]);
      await lab.kubectl(['wait', '-n', 'names', '--for=condition=Ready', `pod/asker-${node}`, '--timeout=60s']);
      askers.set(node, askSteadily([...kubectl, 'exec', '--stdin', `asker-${node}`, '--', ...ask]));
    }
  });
  after(async () => {
    for (const each of askers.values()) await each.stop();
    await scene?.close();
  });

  const nodes = [...nodeNames.real, ...nodeNames.bare];
  const all = (work: (node: string) => Promise<unknown>) => Promise.all(nodes.map(work));
  const answered = (count: number) => all((node) => askers.get(node)!.more(count));
  const podNames = async () =>
    (await lab.kubectl(['get', 'pods', '-n', 'kube-system', '-l', 'k8s-app=kube-dns', '-o', 'name']))
      .trim()
      .split('\n');

  test('kube-dns is a service at the tenth addresses, its pods are on two nodes', async () => {
    assert.deepEqual(addresses, ['10.96.0.10', 'fd00:10:96::a']);
    const of = [
      'get',
      'pods',
      '-n',
      'kube-system',
      '-l',
      'k8s-app=kube-dns',
      '-o',
      'jsonpath={.items[*].spec.nodeName}',
    ];
    assert.deepEqual((await lab.kubectl(of)).split(' ').sort(), [...nodeNames.real]);
    const file = await lab.kubectl(['exec', '-n', 'names', `asker-${nodes[0]}`, '--', 'cat', '/etc/resolv.conf']);
    for (const address of addresses) assert.match(file, new RegExp(`^nameserver ${address}$`, 'm'));
  });

  test('answers pods of all nodes while all agents die, are away and start again', async () => {
    await answered(20);
    await all((node) => stopAgent(labName, node, 'kill'));
    await answered(20);
    await all(async (node) => {
      await startAgent(labName, node);
      await waitForAgent(labName, node);
      const synced = async () => (await lab.agent<{ synced: boolean }>(node, '/v1/sync')).synced;
      await waitFor(`the agent of ${node} to be in step`, synced, 20_000);
    });
    await answered(20);
  });

  test('answers while its pods are deleted one after the other', async () => {
    for (const pod of await podNames()) {
      await lab.kubectl(['delete', '-n', 'kube-system', pod, '--timeout=60s']);
      await lab.kubectl(['rollout', 'status', '-n', 'kube-system', 'deployment/coredns', '--timeout=60s']);
      await answered(20);
    }
  });

  test('no question stayed without its answer', async () => {
    for (const [node, each] of askers) {
      const { counts, losses } = await each.stop();
      assert.equal(counts.lost, 0, `${node}: ${JSON.stringify(counts)}\n${losses}`);
      assert.ok(counts.kept >= 100 && counts.new >= 100 && counts.udp >= 100, `${node}: ${JSON.stringify(counts)}`);
    }
    askers.clear();
  });
});
