// Objects that the lab itself puts into a new cluster: rights for Weir's programs, and the cluster's name server.
import { type Api, type ApiObject, ensure } from './api.ts';
import { apiServerAddress, apiServerPort, weirGroups } from './credentials.ts';
import { imageNames } from './images.ts';
import type { LabRecord } from './state.ts';

const collections: Record<string, { group: string; plural: string; namespaced: boolean }> = {
  ClusterRole: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'clusterroles', namespaced: false },
  ClusterRoleBinding: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'clusterrolebindings', namespaced: false },
  ConfigMap: { group: 'api/v1', plural: 'configmaps', namespaced: true },
  Deployment: { group: 'apis/apps/v1', plural: 'deployments', namespaced: true },
  ServiceAccount: { group: 'api/v1', plural: 'serviceaccounts', namespaced: true },
};

/** Creates objects that are not there yet. */
export async function ensureObjects(api: Api, objects: readonly ApiObject[]): Promise<void> {
  for (const object of objects) {
    const collection = collections[object.kind ?? ''];
    if (collection === undefined) throw new Error(`the lab does not create a ${object.kind}`);
    const within = collection.namespaced ? `/namespaces/${object.metadata.namespace ?? 'default'}` : '';
    await ensure(api, `/${collection.group}${within}/${collection.plural}`, object);
  }
}

const read = ['get', 'list', 'watch'];
const write = ['create', 'update', 'patch', 'delete'];
const rule = (group: string, resources: string[], verbs: string[]) => ({ apiGroups: [group], resources, verbs });

/** What an agent needs. That it writes slices of its own node only is a matter of the operator's admission rules. */
const agentRules = [
  rule('', ['namespaces', 'nodes', 'pods', 'services'], read),
  rule('discovery.k8s.io', ['endpointslices'], read),
  rule('networking.k8s.io', ['networkpolicies'], read),
  rule('weir.dev', ['weirnodes', 'weiridentities', 'weirendpointslices'], read),
  rule('weir.dev', ['weirendpointslices'], ['create', 'patch', 'delete']),
];
const operatorRules = [
  rule('', ['nodes', 'pods'], read),
  rule('weir.dev', ['weirnodes', 'weirnodes/status', 'weirblocks', 'weiridentities'], [...read, ...write]),
  rule('weir.dev', ['weirendpointslices'], [...read, 'delete']),
  rule('coordination.k8s.io', ['leases'], [...read, 'create', 'update']),
  rule('apiextensions.k8s.io', ['customresourcedefinitions'], ['get', 'create', 'patch']),
  rule(
    'admissionregistration.k8s.io',
    ['validatingadmissionpolicies', 'validatingadmissionpolicybindings'],
    ['get', 'create', 'patch', 'delete'],
  ),
];

const rbac = 'rbac.authorization.k8s.io';

/** A service account and a role for it and for the holders of certificates with `group`. */
function role(name: string, group: string, rules: readonly object[]): ApiObject[] {
  const account = { kind: 'ServiceAccount', name, namespace: 'kube-system' };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: 'kube-system' } },
    { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name }, rules },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name },
      subjects: [account, { apiGroup: rbac, kind: 'Group', name: group }],
    },
  ];
}

/** What Weir's agents and its operator may do in the cluster. */
export function weirRoles(): ApiObject[] {
  return [
    ...role('weir-agent', weirGroups.agents, agentRules),
    ...role('weir-operator', weirGroups.operators, operatorRules),
  ];
}

const corefile = `cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
  errors
  health :8080
  ready :8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    pods insecure
    ttl 5
  }
  cache 5
  loadbalance
}
# Names outside the cluster do not exist here: saying so at once spares clients their retries.
.:53 {
  template ANY ANY {
    rcode NXDOMAIN
  }
}
`;

/**
 * CoreDNS in the first node's own network. It talks to the API server's address and not to the `kubernetes` service,
 * because nothing in the cluster balances services; for the same reason pods name the node's address as name server.
 */
export function nameServer(record: LabRecord, nodeName: string): ApiObject[] {
  const metadata = { name: 'coredns', namespace: 'kube-system' };
  const labels = { 'k8s-app': 'kube-dns' };
  const probe = (port: number, path: string) => ({ httpGet: { path, port }, periodSeconds: 2, failureThreshold: 10 });
  const container = {
    name: 'coredns',
    image: imageNames.coredns,
    imagePullPolicy: 'Never',
    args: ['-conf', '/etc/coredns/Corefile'],
    env: [
      { name: 'KUBERNETES_SERVICE_HOST', value: apiServerAddress(record) },
      { name: 'KUBERNETES_SERVICE_PORT', value: String(apiServerPort) },
    ],
    readinessProbe: { ...probe(8181, '/ready'), periodSeconds: 1 },
    livenessProbe: probe(8080, '/health'),
    volumeMounts: [{ name: 'config', mountPath: '/etc/coredns' }],
  };
  const pod = {
    serviceAccountName: 'coredns',
    priorityClassName: 'system-cluster-critical',
    hostNetwork: true,
    dnsPolicy: 'Default',
    nodeSelector: { 'kubernetes.io/hostname': nodeName },
    tolerations: [{ operator: 'Exists' }],
    containers: [container],
    volumes: [{ name: 'config', configMap: { name: 'coredns' } }],
  };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRole',
      metadata: { name: 'system:coredns' },
      rules: [
        { apiGroups: [''], resources: ['endpoints', 'services', 'pods', 'namespaces'], verbs: ['list', 'watch'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
      ],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'system:coredns' },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'system:coredns' },
      subjects: [{ kind: 'ServiceAccount', name: 'coredns', namespace: 'kube-system' }],
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { Corefile: corefile } },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { ...metadata, labels },
      spec: {
        replicas: 1,
        strategy: { type: 'Recreate' }, // two at once cannot have the same port of the node
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: pod },
      },
    },
  ];
}
