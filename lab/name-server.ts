// The cluster's name server, as in any cluster: CoreDNS in pods behind the service `kube-dns`, which kubelet tells to all
// other pods. It finds the API server by the service `kubernetes`, so it works once Weir does.
import { families, nameServerAddresses } from './addresses.ts';
import type { Api, ApiObject } from './api.ts';
import { imageNames } from './images.ts';
import type { LabRecord } from './state.ts';
import { waitFor } from './wait.ts';

const rbac = 'rbac.authorization.k8s.io';
const namespace = 'kube-system';
const labels = { 'k8s-app': 'kube-dns' };

// A pod that is to end answers on for as long as it may take until nobody asks it any more (lameduck).
const corefile = `cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
  errors
  health :8080 {
    lameduck 3s
  }
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

/** CoreDNS, on two nodes where there are two, and its service at the address that every kubelet knows. */
export function nameServer(record: LabRecord): ApiObject[] {
  const metadata = { name: 'coredns', namespace };
  const probe = (port: number, path: string) => ({ httpGet: { path, port }, periodSeconds: 2, failureThreshold: 10 });
  const container = {
    name: 'coredns',
    image: imageNames.coredns,
    imagePullPolicy: 'Never',
    args: ['-conf', '/etc/coredns/Corefile'],
    ports: [
      { name: 'dns', containerPort: 53, protocol: 'UDP' },
      { name: 'dns-tcp', containerPort: 53, protocol: 'TCP' },
    ],
    readinessProbe: { ...probe(8181, '/ready'), periodSeconds: 1 },
    livenessProbe: probe(8080, '/health'),
    volumeMounts: [{ name: 'config', mountPath: '/etc/coredns' }],
  };
  const apart = { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: labels } };
  const pod = {
    serviceAccountName: 'coredns',
    priorityClassName: 'system-cluster-critical',
    dnsPolicy: 'Default',
    affinity: {
      podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, podAffinityTerm: apart }] },
    },
    containers: [container],
    volumes: [{ name: 'config', configMap: { name: 'coredns' } }],
  };
  const addresses = nameServerAddresses(record.ipFamily);
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRole',
      metadata: { name: 'system:coredns' },
      rules: [
        { apiGroups: [''], resources: ['services', 'pods', 'namespaces'], verbs: ['list', 'watch'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
      ],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'system:coredns' },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'system:coredns' },
      subjects: [{ kind: 'ServiceAccount', name: 'coredns', namespace }],
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { Corefile: corefile } },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'kube-dns', namespace, labels },
      spec: {
        clusterIP: addresses[0],
        clusterIPs: addresses,
        ipFamilies: families(record.ipFamily).map((family) => (family === 'v4' ? 'IPv4' : 'IPv6')),
        ipFamilyPolicy: addresses.length === 2 ? 'RequireDualStack' : 'SingleStack',
        selector: labels,
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP', targetPort: 'dns' },
          { name: 'dns-tcp', port: 53, protocol: 'TCP', targetPort: 'dns-tcp' },
        ],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { ...metadata, labels },
      spec: {
        replicas: Math.min(2, record.nodes.filter((node) => node.kubelet).length),
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: pod },
      },
    },
  ];
}

/** Waits until every pod of the name server is ready. */
export async function waitForNameServer(api: Api): Promise<void> {
  await waitFor(
    'the name server',
    async () => {
      const { spec, status } = await api.get(`/apis/apps/v1/namespaces/${namespace}/deployments/coredns`);
      return status?.readyReplicas === spec.replicas;
    },
    60_000,
    100,
  );
}
