// What follows from a change of something that a policy refers to.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cilium, far, is, languageScene, namespace, outside, peersNamespace, port, skip } from './language-scene.ts';
import { isCutAndFreed, type Written } from './policy-scene.ts';

describe('what policies refer to', { skip }, () => {
  const at = languageScene();
  const clientMay = (...egress: object[]) => cilium('client', { endpointSelector: is('client'), egress });
  const service = (name: string, selector: object | undefined, labels: object = {}) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels },
    spec: { ...(selector && { selector }), ports: [{ port: 9 }] },
  });
  const change = (path: string, body: object) => () => at.lab.api.patch(path, body);
  const services = `/api/v1/namespaces/${namespace}/services`;

  test('a group of blocks', async () => {
    const group = (cidrs: readonly string[]): Written => ({
      kind: 'CiliumCIDRGroup',
      name: 'language-partners',
      spec: { externalCIDRs: cidrs },
    });
    const own = outside.one.map((address) => (address.includes(':') ? `${address}/128` : `${address}/32`));
    await at.lab.apply([at.policies.manifest(group(own))]);
    try {
      await at.policies.enforce(clientMay({ toCIDRSet: [{ cidrGroupRef: 'language-partners' }] }));
      await isCutAndFreed('traffic to the group', at.open(outside.one), {
        cut: () => at.lab.apply([at.policies.manifest(group(['203.0.113.0/24']))]),
        free: () => at.lab.apply([at.policies.manifest(group(own))]),
      });
    } finally {
      await at.lab.api.delete(at.policies.path(group([])));
    }
  });

  test('a service by its name, and by its labels', async () => {
    const path = `${services}/chosen`;
    await at.lab.apply([service('chosen', { app: 'server' }, { tier: 'back' })]);
    try {
      await at.policies.enforce(clientMay({ toServices: [{ k8sService: { serviceName: 'chosen', namespace } }] }));
      const to = at.scene.pod('server-far').addresses;
      await isCutAndFreed('traffic to the service’s pods', at.open(to), {
        cut: change(path, { spec: { selector: { app: 'nobody' } } }),
        free: change(path, { spec: { selector: { app: 'server' } } }),
      });
      const back = { matchLabels: { tier: 'back' } };
      await at.policies.enforce(clientMay({ toServices: [{ k8sServiceSelector: { selector: back, namespace } }] }));
      await isCutAndFreed('traffic to pods of services', at.open(to), {
        cut: change(path, { metadata: { labels: { tier: 'front' } } }),
        free: change(path, { metadata: { labels: { tier: 'back' } } }),
      });
    } finally {
      await at.lab.api.delete(path);
    }
  });

  test('a service that selects by a label that is not part of identities, by its endpoints', async () => {
    // As of one pod of a StatefulSet.
    const label = 'statefulset.kubernetes.io/pod-name';
    const path = `${services}/only`;
    await at.lab.kubectl(['label', 'pod', '-n', namespace, 'server-far', `${label}=server-far`, '--overwrite']);
    const slice = (family: 4 | 6, addresses: readonly string[]) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: `only-${family}`, namespace, labels: { 'kubernetes.io/service-name': 'only' } },
      addressType: `IPv${family}`,
      endpoints: addresses.map((address) => ({ addresses: [address] })),
      ports: [{ port }],
    });
    const [four, six] = at.scene.pod('server-far').addresses as [string, string];
    await at.lab.apply([service('only', { app: 'server', [label]: 'server-far' }), slice(4, [four]), slice(6, [six])]);
    try {
      const may = clientMay({ toServices: [{ k8sService: { serviceName: 'only', namespace } }] });
      await at.policies.enforce(may);
      await at.becomes('client', 'server-far', 'ok');
      await at.conditionsBecome(may, { Enforced: 'True Enforced' });
      assert.equal(await at.scene.probe('client', 'server-near', 80), 'silent', 'the other pod of the same labels');
    } finally {
      await at.lab.api.delete(path);
    }
    await at.becomes('client', 'server-far', 'silent');
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
    await at.lab.apply([service('byhand', undefined), ...slices(outside.one)]);
    try {
      await at.policies.enforce(clientMay({ toServices: [{ k8sService: { serviceName: 'byhand', namespace } }] }));
      await isCutAndFreed('traffic to endpoints', at.open(outside.one), {
        cut: () => at.lab.apply(slices(outside.two)),
        free: () => at.lab.apply(slices(outside.one)),
      });
    } finally {
      await at.lab.api.delete(`${services}/byhand`);
    }
  });

  test('nodes by their labels', async () => {
    const label = (text: string) => () => at.lab.kubectl(['label', 'node', far, text, '--overwrite']);
    const { addresses } = (await at.lab.status()).nodes.find((each) => each.name === far)!;
    await label('language=yes')();
    await at.policies.enforce(clientMay({ toNodes: [{ matchLabels: { language: 'yes' } }] }));
    await isCutAndFreed('traffic to the node', at.open(addresses), {
      cut: label('language=no'),
      free: label('language=yes'),
    });
    await label('language-')();
  });

  test('labels of namespaces and of pods', async () => {
    const label = (what: string[], text: string) => () => at.lab.kubectl(['label', ...what, text, '--overwrite']);
    const red = { 'k8s:io.cilium.k8s.namespace.labels.team': 'red' };
    await at.policies.enforce(clientMay({ toEndpoints: [{ matchLabels: red }] }));
    const peers = ['namespace', peersNamespace];
    await isCutAndFreed('traffic to the namespace', at.open(at.scene.pod('peer').addresses), {
      cut: label(peers, 'team=blue'),
      free: label(peers, 'team=red'),
    });
    await at.policies.enforce(clientMay({ toEndpoints: [is('server')] }));
    const pod = ['pod', '-n', namespace, 'server-near'];
    await isCutAndFreed('traffic to the pod', at.open(at.scene.pod('server-near').addresses), {
      cut: label(pod, 'app=other'),
      free: label(pod, 'app=server'),
    });
  });

  test('the API server, which is outside of the nodes', async () => {
    await at.policies.enforce(clientMay({ toEntities: ['kube-apiserver'] }));
    const probe = (address: string, number: number) => at.scene.pod('client').prober.probe('tcp', address, number, 500);
    assert.equal(await probe('10.77.0.1', 6443), 'ok');
    assert.equal(await probe(outside.one[0], 80), 'silent');
    await at.policies.enforce(
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
    await at.lab.apply([service('denied', { app: 'server' })]);
    try {
      for (let i = 0; i < 3; i++) {
        const policy = cilium(`no-service-${i}`, {
          endpointSelector: is('client'),
          egress: [{ toEntities: ['all'] }],
          egressDeny: [{ toServices: [{ k8sService: { serviceName: 'denied', namespace } }] }],
        });
        await at.policies.enforce(policy);
        assert.equal(await at.scene.probe('client', 'server-far', 80), 'silent');
        await at.policies.remove(policy);
      }
    } finally {
      await at.lab.api.delete(`${services}/denied`);
    }
  });
});
