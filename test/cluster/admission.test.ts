// What the API server lets an agent write: tried with the credentials of a node's agent, not with the administrator's.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { paths } from '../../lab/state.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { loadKubeconfig } from '../../src/kube/kubeconfig.ts';
import { type WeirEndpointSlice, type WeirNode, weirResources } from '../../src/kube/weir/schemas.ts';
import { labName, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

const credentials = join(paths.pki(labName), 'agent-node1.kubeconfig');

describe('admission', { skip }, () => {
  let lab: SharedLab;
  let agent: KubeClient;
  let admin: KubeClient;
  let own: readonly string[];

  const slice = (name: string, node: string, ipv4?: string, label = node): WeirEndpointSlice => ({
    apiVersion: 'weir.dev/v1alpha1',
    kind: 'WeirEndpointSlice',
    metadata: { name, labels: { 'weir.dev/node': label } },
    node,
    endpoints: [
      { id: 65_000, namespace: 'shop', pod: 'made-up', ...(ipv4 === undefined ? {} : { ipv4 }), identity: 300 },
    ],
  });
  const asAgent = (args: readonly string[], stdin?: string) =>
    lab.kubectl(['--kubeconfig', credentials, '--server', admin.server, ...args], stdin);
  const create = (object: object) => asAgent(['create', '--dry-run=server', '-f', '-'], JSON.stringify(object));

  before(async () => {
    lab = await sharedLab();
    admin = createKubeClient(loadKubeconfig(paths.kubeconfig(labName)));
    agent = createKubeClient({
      ...loadKubeconfig(credentials),
      server: admin.server,
    });
    own = (await admin.get<WeirNode>(weirResources.nodes, 'node1')).spec.podCIDRs;
  });
  after(() => {
    agent.close();
    admin.close();
  });
  const inOwn = () => own.find((cidr) => !cidr.includes(':'))!.replace(/\.0\/24$/, '.250');

  test('an agent writes slices of its own node with addresses of its own block', async () => {
    await create(slice('node1-77', 'node1', inOwn()));
  });

  test('an agent cannot write a slice of another node, nor one that says so by its name or label only', async () => {
    await assert.rejects(create(slice('node2-77', 'node2')), /may not write an endpoint slice of node "node2"/);
    await assert.rejects(create(slice('node2-77', 'node1')), /is named "node1-NUMBER"/);
    await assert.rejects(create(slice('node1-77', 'node1', undefined, 'node2')), /labelled weir.dev\/node=node1/);
  });

  test('an agent cannot claim an address outside the blocks of its node', async () => {
    for (const address of ['10.244.200.9', '10.77.0.1', 'not-an-address'])
      await assert.rejects(create(slice('node1-77', 'node1', address)), /outside the blocks of node "node1"/);
  });

  test('an agent can neither change nor delete what another node wrote', async () => {
    await admin.create(weirResources.endpointSlices, slice('node2-78', 'node2'));
    try {
      await assert.rejects(
        asAgent(['delete', 'weirendpointslice', 'node2-78']),
        /may not change an endpoint slice of node "node2"/,
      );
      await assert.rejects(
        agent.apply(weirResources.endpointSlices, slice('node2-78', 'node1')),
        /may not change an endpoint slice of node "node2"/,
      );
    } finally {
      await admin.delete(weirResources.endpointSlices, 'node2-78');
    }
  });

  test('an agent tells which policies it enforces of its own node only', async () => {
    const report = (name: string) => ({
      apiVersion: 'weir.dev/v1alpha1',
      kind: 'WeirNodeReport',
      metadata: { name },
      policies: { digest: '0-0', revision: 1 },
    });
    const apply = (object: object) =>
      asAgent(['apply', '--server-side', '--force-conflicts', '--dry-run=server', '-f', '-'], JSON.stringify(object));
    await apply(report('node1'));
    await assert.rejects(apply(report('node2')), /may not write weirnodereports/);
  });

  test('an agent can write no nodes, identities or blocks', async () => {
    const node = { apiVersion: 'weir.dev/v1alpha1', kind: 'WeirNode', metadata: { name: 'node1' } };
    const spec = { addresses: [], clusterPools: [], podCIDRs: ['10.244.0.0/16'] };
    await assert.rejects(agent.apply(weirResources.nodes, { ...node, spec }), /forbidden/);
    const identity = { apiVersion: 'weir.dev/v1alpha1', kind: 'WeirIdentity', metadata: { name: '9999' }, labels: [] };
    await assert.rejects(create(identity), /forbidden/);
  });

  test('an agent ignores what is told of an address outside the block of the node that tells, and says so', async () => {
    const refused = async () =>
      (await lab.agent<{ refusedPods: { count: number; examples: { key: string }[] } }>('node1', '/v1/status'))
        .refusedPods;
    await admin.create(weirResources.endpointSlices, slice('node2-79', 'node2', inOwn()));
    const key = 'node2/65000';
    try {
      await waitFor(
        'the agent to refuse it',
        async () => (await refused()).examples.some((row) => row.key === key),
        5_000,
      );
    } finally {
      await admin.delete(weirResources.endpointSlices, 'node2-79');
    }
    await waitFor(
      'the agent to forget it',
      async () => !(await refused()).examples.some((row) => row.key === key),
      5_000,
    );
  });

  test('whatever rights an agent is given, the rule stands', async () => {
    const metadata = { name: 'made-up-agent-rights' };
    const kinds = ['clusterrole', 'clusterrolebinding'];
    await lab.apply([
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRole',
        metadata,
        rules: [{ apiGroups: ['weir.dev'], resources: ['*'], verbs: ['*'] }],
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata,
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: metadata.name },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'weir:agents' }],
      },
    ]);
    try {
      const identity = {
        apiVersion: 'weir.dev/v1alpha1',
        kind: 'WeirIdentity',
        metadata: { name: '9999' },
        labels: [],
      };
      await assert.rejects(create(identity), /may not write weiridentities: only the operator does/);
    } finally {
      for (const kind of kinds) await lab.kubectl(['delete', kind, metadata.name]);
    }
  });
});
