// Which of Kubernetes' own tests are run, in groups, and which are left out and why. Every number is asserted: a pattern
// that no longer finds what it was written for fails the run before it begins.

/** Tests that are left out. */
export interface LeftOut {
  readonly tests: RegExp;
  readonly count: number;
  readonly reason: string;
}

/** Tests that are run together in one lab. */
export interface Group {
  readonly name: string;
  readonly title: string;
  readonly selects: RegExp;
  /** How many are run: what `selects` finds without what is left out. */
  readonly count: number;
  readonly leftOut: readonly LeftOut[];
  /** Nodes of the lab. */
  readonly nodes: number;
  /** They are put into three zones by turns. */
  readonly zones?: true;
  /** Services of type LoadBalancer get addresses there. */
  readonly loadBalancers?: true;
  /** Tests at the same time: some work, others mostly wait. */
  readonly procs: number;
}

/** What came of a group's patterns. */
export interface Choice {
  readonly chosen: readonly string[];
  readonly leftOut: readonly { readonly name: string; readonly reason: string }[];
}

const noSctp = 'needs SCTP sockets, which the kernel that we test on does not have';
const noInternet = 'needs the Internet, which a lab never reaches';
const kubeProxyOnly = 'is about kube-proxy itself: its addresses, its rules or its netfilter entries';

/** All groups, in the order in which they are run. */
export const groups: readonly Group[] = [
  {
    name: 'conformance',
    title: 'what every Kubernetes cluster must do: [sig-network] ... [Conformance]',
    selects: /^\[sig-network\] .*\[Conformance\]/,
    count: 45,
    leftOut: [],
    nodes: 3,
    procs: 3,
  },
  {
    name: 'policy',
    title: 'the whole NetworkPolicy suite',
    selects: /^\[sig-network\] Netpol /,
    count: 47,
    leftOut: [{ tests: /\[Feature:SCTPConnectivity\]/, count: 3, reason: noSctp }],
    nodes: 3,
    procs: 3,
  },
  {
    name: 'network',
    title: 'all other tests of [sig-network]',
    selects: /^\[sig-network\] (?!Netpol |.*\[Conformance\]|LoadBalancers |Traffic Distribution )/,
    count: 103,
    leftOut: [
      { tests: /\[Feature:SCTPConnectivity\]/, count: 6, reason: noSctp },
      {
        tests: /(provide|provider) Internet connection|Forward PTR lookup|Forward external name lookup/,
        count: 5,
        reason: noInternet,
      },
      {
        tests: /KubeProxy should set|KubeProxyNFAcct|check kube-proxy urls|recreate its iptables/,
        count: 4,
        reason: kubeProxyOnly,
      },
      { tests: /kube-proxy migration|after restarting kube-proxy/, count: 3, reason: kubeProxyOnly },
      {
        tests: /after restarting apiserver/,
        count: 1,
        reason: 'wants to end the API server as a pod, which it is not in a lab',
      },
      {
        tests: /IPerf2/,
        count: 1,
        reason:
          'reads what one version of iperf prints, which is not the one that Debian has; speed is measured in bench/',
      },
      { tests: /\[Provider:GCE\]/, count: 1, reason: 'runs in one cloud only' },
      { tests: /\[Alpha\]/, count: 1, reason: 'needs a feature that Kubernetes has off by default' },
      {
        tests: /\[Feature:PerformanceDNS\]/,
        count: 1,
        reason: 'measures the name server, with 10 000 services, for up to an hour',
      },
    ],
    nodes: 3,
    zones: true,
    procs: 6,
  },
  {
    name: 'load-balancers',
    title: 'services of type LoadBalancer, at addresses that are announced on the network of the nodes',
    selects: /^\[sig-network\] LoadBalancers /,
    count: 15,
    leftOut: [
      {
        tests: /load balancer cleanup finalizer/,
        count: 1,
        reason: 'wants the finalizer that only the controller of a cloud gives to a Service',
      },
      {
        tests: /switch session affinity for LoadBalancer service with Local/,
        count: 1,
        reason:
          'wants answers from pods of several nodes at one address; with `Local` only pods of the node that announces it answer',
      },
    ],
    nodes: 3,
    loadBalancers: true,
    procs: 6,
  },
  {
    name: 'zones',
    title: 'traffic that stays in a zone or on a node',
    selects: /^\[sig-network\] Traffic Distribution /,
    count: 6,
    leftOut: [],
    nodes: 6,
    zones: true,
    procs: 3,
  },
];

/** Applies a group's patterns to the names of all tests; an error when one of its numbers is not right. */
export function choose(group: Group, names: readonly string[]): Choice {
  const candidates = names.filter((name) => group.selects.test(name));
  const leftOut: { name: string; reason: string }[] = [];
  for (const { tests, count, reason } of group.leftOut) {
    const found = candidates.filter((name) => tests.test(name) && !leftOut.some((each) => each.name === name));
    if (found.length !== count)
      throw new Error(`group ${group.name}: ${tests} leaves out ${found.length} tests, not ${count} as it says`);
    leftOut.push(...found.map((name) => ({ name, reason })));
  }
  const chosen = candidates.filter((name) => !leftOut.some((each) => each.name === name));
  if (chosen.length !== group.count)
    throw new Error(`group ${group.name} selects ${chosen.length} tests, not ${group.count} as it says`);
  return { chosen, leftOut };
}

/** The names in what `e2e.test --list-tests` prints: one `    file:line: name` on each line. */
export function listedNames(text: string): string[] {
  return [...text.matchAll(/^\s+\S+\.go:\d+: (.+)$/gm)].map((match) => match[1]!);
}

/** The pattern by which exactly these tests are run. */
export function focusOf(names: readonly string[]): string {
  return names.map((name) => `${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`).join('|');
}
