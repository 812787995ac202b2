import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerWhy } from '../why.ts';
import { offlineModel } from './offline-model.ts';
import { readManifests } from './read-manifests.ts';

const cluster = `
kind: Namespace
metadata: {name: shop, labels: {zone: front}}
---
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{ports: [{name: http, containerPort: 8080}]}]
---
kind: Deployment
metadata: {name: db, namespace: data}
spec: {template: {metadata: {labels: {app: db}}, spec: {containers: [{ports: [{name: sql, containerPort: 5432}]}]}}}
---
kind: Pod
metadata:
  name: db-5d4f-x1
  namespace: data
  labels: {app: db, pod-template-hash: 5d4f}
  ownerReferences: [{kind: ReplicaSet, name: db-5d4f, controller: true}]
spec: {containers: [{ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.244.0.1}, {ip: 'fd00::7'}]}
---
kind: Pod
metadata: {name: on-the-node, namespace: data}
spec: {hostNetwork: true}
---
kind: Node
metadata: {name: n1, labels: {role: edge}}
spec: {podCIDRs: [10.244.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]}
---
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
endpoints: [{addresses: [192.168.0.2]}]
---
kind: Service
metadata: {name: outside, namespace: shop}
---
kind: Endpoints
metadata: {name: outside, namespace: shop}
subsets: [{addresses: [{ip: 203.0.113.9}]}]
`;
const policies = `
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {zone: front}}}], ports: [{port: sql}]}]
---
kind: CiliumNetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  endpointSelector: {}
  egress: [{toServices: [{k8sService: {serviceName: outside, namespace: shop}}]}, {toEntities: [kube-apiserver]}]
`;

const offline = () =>
  offlineModel(readManifests([cluster, policies].map((text, i) => ({ file: `${i}.yaml`, text }))).manifests);
const why = (from: string, to: string, port: string) => {
  const { model, services } = offline();
  const { answers, notFound } = answerWhy(model, services, { from, to, port });
  assert.equal(notFound, undefined);
  const { egress, ingress } = answers[0]!;
  return !egress.allowed ? 'egress denied' : ingress.allowed ? 'allowed' : 'ingress denied';
};

test('offlineModel() knows pods by their workloads, real pods before planned ones', () => {
  const { pods, planned, model } = offline();
  assert.deepEqual(
    pods.map(({ name, workload }) => [name, workload.kind, workload.name]),
    [
      ['db-5d4f-x1', 'Deployment', 'db'],
      ['web', 'Deployment', 'web'],
    ],
  );
  assert.equal(planned.has('10.244.0.1'), false);
  assert.deepEqual(
    model.addresses.filter((row) => planned.has(row.address)).map((row) => row.pod),
    ['web', 'web'],
  );
});

test('offlineModel() answers for namespaces, named ports, services, nodes and the API server', () => {
  assert.equal(why('shop/web', 'data/db', '5432'), 'egress denied');
  assert.equal(why('app=x@data', 'data/db', '5432'), 'ingress denied');
  assert.equal(why('shop/web', '203.0.113.9', '443'), 'allowed');
  assert.equal(why('shop/web', '203.0.113.8', '443'), 'egress denied');
  assert.equal(why('shop/web', '192.168.0.2', '6443'), 'allowed');
  assert.equal(why('shop/web', '192.168.0.1', '6443'), 'egress denied');
  assert.equal(why('192.168.0.1', 'data/db', '5432'), 'allowed');
  assert.equal(why('192.168.0.2', 'data/db', '5432'), 'ingress denied');
});
