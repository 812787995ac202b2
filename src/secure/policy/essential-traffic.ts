// What a node must not lose by the default deny of policies for nodes: without it the node, or its cluster, cannot work
// and nobody could take the policy back. One table; docs/host-firewall.md shows it. Explicit denials win over it.
import { reservedIdentities } from '../../core/identity.ts';
import { formatCidr, hostCidr, parseAddress } from '../../core/ip.ts';
import type { LabelMap } from '../../core/labels.ts';
import { type Direction, type PolicyPeer, type PolicyPort, type PolicyRow, policyKey } from '../../core/rows.ts';

/** Who is at the other end. */
export type EssentialPeer = 'anyone' | 'api-servers' | 'nodes' | 'pods' | 'own-pods';

/** One row of the table. */
export interface EssentialTraffic {
  readonly name: string;
  readonly why: string;
  readonly direction: Direction;
  readonly peers: readonly EssentialPeer[];
  /** Absent: everything. `health-checks`: the ports that Services have for it. */
  readonly ports?: readonly PolicyPort[] | 'health-checks';
  readonly only?: 'control-plane';
}

const tcp = (first: number, last = first): PolicyPort => ({ kind: 'range', protocol: 6, first, last });
const udp = (first: number, last = first): PolicyPort => ({ kind: 'range', protocol: 17, first, last });
const icmp = (first: number, last = first): PolicyPort => ({ kind: 'range', protocol: 1, first, last });
const icmp6 = (first: number, last = first): PolicyPort => ({ kind: 'range', protocol: 58, first, last });

function bothWays(row: Omit<EssentialTraffic, 'direction'>): EssentialTraffic[] {
  return [
    { ...row, direction: 'ingress' },
    { ...row, direction: 'egress' },
  ];
}

/** The table. ARP and replies of known connections need no row: they are never judged. */
export const essentialTraffic: readonly EssentialTraffic[] = [
  ...bothWays({
    name: 'neighbour discovery',
    why: 'ICMPv6 neighbour and router discovery, and the multicast listeners behind it: without it there is no IPv6 at all',
    peers: ['anyone'],
    ports: [icmp6(130, 137), icmp6(143)],
  }),
  ...bothWays({
    name: 'ICMP errors',
    why: 'path MTU discovery, unreachable, time exceeded: without them connections hang instead of failing',
    peers: ['anyone'],
    ports: [icmp(3), icmp(11, 12), icmp6(1, 4)],
  }),
  {
    name: 'DHCP answers',
    why: 'the lease of the node, IPv4 and IPv6: without it the node loses its address',
    direction: 'ingress',
    peers: ['anyone'],
    ports: [udp(68), udp(546)],
  },
  {
    name: 'DHCP requests',
    why: 'as above',
    direction: 'egress',
    peers: ['anyone'],
    ports: [udp(67), udp(547)],
  },
  {
    name: 'API server',
    why: 'kubelet and the agent: without it the node turns NotReady, and no policy can be taken back',
    direction: 'egress',
    peers: ['api-servers'],
    ports: [{ kind: 'all', protocol: 6 }],
  },
  {
    name: 'kubelet',
    why: 'logs, exec and port-forward come from the API server, metrics from the nodes of the cluster',
    direction: 'ingress',
    peers: ['api-servers', 'nodes'],
    ports: [tcp(10_250)],
  },
  {
    name: 'health checks',
    why: 'load balancers ask each node for its ready backends of Services with the traffic policy Local',
    direction: 'ingress',
    peers: ['anyone'],
    ports: 'health-checks',
  },
  {
    name: 'own pods',
    why: 'probes of the kubelet to the pods of its node',
    direction: 'egress',
    peers: ['own-pods'],
  },
  {
    name: 'control plane',
    why: 'API server and etcd of a node of the control plane, for the nodes',
    direction: 'ingress',
    peers: ['api-servers', 'nodes'],
    ports: [tcp(6443), tcp(2379, 2380)],
    only: 'control-plane',
  },
  {
    name: 'API server for pods',
    why: 'name servers, operators and controllers of the cluster are pods that ask the API server',
    direction: 'ingress',
    peers: ['pods'],
    ports: [tcp(6443)],
    only: 'control-plane',
  },
  {
    name: 'other control planes and kubelets',
    why: 'API server, etcd and the kubelets that a node of the control plane talks to',
    direction: 'egress',
    peers: ['api-servers', 'nodes'],
    ports: [tcp(6443), tcp(2379, 2380), tcp(10_250)],
    only: 'control-plane',
  },
];

/** How verdicts name the table. */
const essentialKind = 'Builtin';
const essentialName = 'essential-traffic';
export const essentialKey = policyKey(essentialKind, '', essentialName);

const controlPlaneLabels = ['node-role.kubernetes.io/control-plane', 'node-role.kubernetes.io/master'];

/** What the table needs to know of this node. */
export interface EssentialContext {
  readonly nodeLabels: LabelMap;
  readonly podCidrs: readonly string[];
  /** Where the node itself looks for the API server, beside the addresses that the cluster knows. */
  readonly apiServers?: readonly string[];
  readonly healthCheckPorts?: readonly number[];
}

/** The table as a policy of the tier `essential` for this node. */
export function essentialPolicy(context: EssentialContext): PolicyRow {
  const isControlPlane = controlPlaneLabels.some((label) => Object.hasOwn(context.nodeLabels, label));
  const rows = essentialTraffic.filter(({ only }) => only === undefined || isControlPlane);
  const rules = (direction: Direction) =>
    rows
      .filter((row) => row.direction === direction)
      .map(({ peers, ports }, index) => {
        const named = peers.includes('anyone') ? undefined : peers.flatMap((peer) => peersOf(peer, context));
        return {
          index,
          list: direction,
          action: 'allow' as const,
          ...(named !== undefined && { peers: named }),
          ...(ports !== undefined && {
            ports: ports === 'health-checks' ? (context.healthCheckPorts ?? []).map((port) => tcp(port)) : ports,
          }),
        };
      });
  return {
    key: essentialKey,
    kind: essentialKind,
    namespace: '',
    name: essentialName,
    tier: 'essential',
    priority: 0,
    staged: false,
    subject: { kind: 'node' },
    isolates: { ingress: false, egress: false },
    ingress: rules('ingress'),
    egress: rules('egress'),
  };
}

function peersOf(peer: EssentialPeer, context: EssentialContext): PolicyPeer[] {
  switch (peer) {
    case 'anyone':
      return [];
    case 'api-servers':
      return [
        { kind: 'reserved', identities: [reservedIdentities['kube-apiserver']] },
        ...(context.apiServers ?? []).flatMap((text): PolicyPeer[] => {
          const address = parseAddress(text);
          return address.ok
            ? [{ kind: 'block', cidr: formatCidr(hostCidr(address.value)), except: [], reach: 'not-pods' }]
            : [];
        }),
      ];
    case 'nodes':
      return [{ kind: 'reserved', identities: [reservedIdentities['remote-node']] }];
    case 'pods':
      return [{ kind: 'endpoints', selector: { matchLabels: {}, matchExpressions: [] } }];
    case 'own-pods':
      return context.podCidrs.map((cidr): PolicyPeer => ({ kind: 'block', cidr, except: [], reach: 'any' }));
  }
}
