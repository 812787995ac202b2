// Objects that the lab itself puts into a new cluster: how they are created, and the rights of Weir's programs.
import { type Api, type ApiObject, ensure } from './api.ts';
import { weirGroups } from './credentials.ts';

const collections: Record<string, { group: string; plural: string; namespaced: boolean }> = {
  ClusterRole: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'clusterroles', namespaced: false },
  ClusterRoleBinding: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'clusterrolebindings', namespaced: false },
  ConfigMap: { group: 'api/v1', plural: 'configmaps', namespaced: true },
  Deployment: { group: 'apis/apps/v1', plural: 'deployments', namespaced: true },
  Service: { group: 'api/v1', plural: 'services', namespaced: true },
  Namespace: { group: 'api/v1', plural: 'namespaces', namespaced: false },
  Role: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'roles', namespaced: true },
  RoleBinding: { group: 'apis/rbac.authorization.k8s.io/v1', plural: 'rolebindings', namespaced: true },
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
  rule('', ['events'], ['create']),
  rule('discovery.k8s.io', ['endpointslices'], read),
  rule('networking.k8s.io', ['networkpolicies'], read),
  rule('cilium.io', ['ciliumnetworkpolicies', 'ciliumclusterwidenetworkpolicies', 'ciliumcidrgroups'], read),
  rule('policy.networking.k8s.io', ['clusternetworkpolicies'], read),
  rule('weir.dev', ['weirnodes', 'weiridentities', 'weirendpointslices'], read),
  rule('weir.dev', ['weirendpointslices'], ['create', 'patch', 'delete']),
  rule('weir.dev', ['weirnodereports'], ['create', 'patch']),
];
const operatorRules = [
  rule('', ['namespaces'], read),
  rule('networking.k8s.io', ['networkpolicies'], read),
  rule('cilium.io', ['ciliumnetworkpolicies', 'ciliumclusterwidenetworkpolicies', 'ciliumcidrgroups'], read),
  rule('cilium.io', ['ciliumnetworkpolicies/status', 'ciliumclusterwidenetworkpolicies/status'], ['patch']),
  rule('policy.networking.k8s.io', ['clusternetworkpolicies'], read),
  rule('policy.networking.k8s.io', ['clusternetworkpolicies/status'], ['patch']),
  rule('', ['nodes', 'pods', 'services'], read),
  rule('', ['services/status'], ['patch']),
  rule('discovery.k8s.io', ['endpointslices'], read),
  rule('', ['events'], ['create']),
  rule('cilium.io', ['ciliumloadbalancerippools'], read),
  rule('cilium.io', ['ciliumloadbalancerippools/status'], ['patch']),
  rule('weir.dev', ['weirnodes', 'weirnodes/status', 'weirblocks', 'weiridentities'], [...read, ...write]),
  rule('weir.dev', ['weirendpointslices', 'weirnodereports'], [...read, 'delete']),
  // To know that the API server serves them.
  rule('weir.dev', ['flowaccesses'], ['list']),
  rule('coordination.k8s.io', ['leases'], [...read, 'create', 'update', 'delete']),
  rule('apiextensions.k8s.io', ['customresourcedefinitions'], ['get', 'create', 'patch']),
  rule(
    'admissionregistration.k8s.io',
    ['validatingadmissionpolicies', 'validatingadmissionpolicybindings'],
    ['get', 'create', 'patch', 'delete'],
  ),
];
/** Nodes for what the relay reads, the rest for who may see what of it. */
const relayRules = [
  rule('', ['nodes', 'namespaces'], read),
  rule('weir.dev', ['flowaccesses'], read),
  rule('authentication.k8s.io', ['tokenreviews'], ['create']),
  rule('authorization.k8s.io', ['subjectaccessreviews'], ['create']),
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

/** Agents decide by leases who announces an address. In a namespace of its own: they may not touch the leases of others. */
function announcementLeases(): ApiObject[] {
  const metadata = { name: 'weir-announce', namespace: 'weir-announce' };
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: metadata.namespace } },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'Role',
      metadata,
      rules: [rule('coordination.k8s.io', ['leases'], [...read, 'create', 'update'])],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: rbac, kind: 'Role', name: metadata.name },
      subjects: [
        { kind: 'ServiceAccount', name: 'weir-agent', namespace: 'kube-system' },
        { apiGroup: rbac, kind: 'Group', name: weirGroups.agents },
      ],
    },
  ];
}

/** What Weir's agents, its operator and its relay may do in the cluster. */
export function weirRoles(): ApiObject[] {
  return [
    ...announcementLeases(),
    ...role('weir-agent', weirGroups.agents, agentRules),
    ...role('weir-operator', weirGroups.operators, operatorRules),
    ...role('weir-relay', weirGroups.relays, relayRules),
  ];
}
