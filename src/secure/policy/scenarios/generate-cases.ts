// The truth table of NetworkPolicy: every kind of peer with every kind of port in both directions, and how policies
// combine. All cases share one set of pods, so that a real cluster is set up once and only policies come and go. The
// outcome of each probe is the evaluator's to say, because blocks depend on the addresses that pods happen to get.
import type { NamedPort } from '../../../core/rows.ts';
import type { Probe, Scenario } from './scenario.ts';

/** One set of policies, and connections to try under it. */
export interface PolicyCase {
  readonly name: string;
  readonly policies: Scenario['policies'];
  readonly probes: readonly Omit<Probe, 'expect'>[];
}

const web: NamedPort = { name: 'web', protocol: 'TCP', port: 80 };

/** The pods of all cases: three alike in each of three namespaces, with ports of the same name and other numbers. */
export const caseWorld: Pick<Scenario, 'namespaces' | 'pods'> = {
  namespaces: {
    x: { 'kubernetes.io/metadata.name': 'x', zone: 'in' },
    y: { 'kubernetes.io/metadata.name': 'y', zone: 'in' },
    z: { 'kubernetes.io/metadata.name': 'z', zone: 'out', guarded: 'yes' },
  },
  pods: {
    'x/a': { labels: { pod: 'a' }, ports: [web] },
    'x/b': { labels: { pod: 'b' }, ports: [{ ...web, port: 81 }], node: 2 },
    'x/c': { labels: { pod: 'c', role: 'client' } },
    'y/a': { labels: { pod: 'a' }, ports: [{ ...web, port: 81 }], node: 2 },
    'y/b': { labels: { pod: 'b', role: 'client' } },
    'z/a': { labels: { pod: 'a', role: 'client' }, ports: [web] },
    'z/c': { labels: { pod: 'c' }, node: 2 },
  },
};

const peers: Record<string, object[] | undefined> = {
  anyone: undefined,
  'pods a': [{ podSelector: { matchLabels: { pod: 'a' } } }],
  'all pods here': [{ podSelector: {} }],
  'namespaces inside': [{ namespaceSelector: { matchLabels: { zone: 'in' } } }],
  'all namespaces': [{ namespaceSelector: {} }],
  'pods b of namespaces inside': [
    { namespaceSelector: { matchLabels: { zone: 'in' } }, podSelector: { matchLabels: { pod: 'b' } } },
  ],
  'pods b, or namespaces outside': [
    { podSelector: { matchLabels: { pod: 'b' } } },
    { namespaceSelector: { matchLabels: { zone: 'out' } } },
  ],
  'pods In': [{ podSelector: { matchExpressions: [{ key: 'pod', operator: 'In', values: ['a', 'c'] }] } }],
  'pods NotIn': [{ podSelector: { matchExpressions: [{ key: 'pod', operator: 'NotIn', values: ['a'] }] } }],
  'pods with Exists': [
    { namespaceSelector: {}, podSelector: { matchExpressions: [{ key: 'role', operator: 'Exists' }] } },
  ],
  'namespaces with DoesNotExist': [
    { namespaceSelector: { matchExpressions: [{ key: 'guarded', operator: 'DoesNotExist' }] } },
  ],
  'the block of one pod': [{ ipBlock: { cidr: '@y/b' } }],
  'a block with an exception': [{ ipBlock: { cidr: '@x/a-8', except: ['@x/c'] } }],
  'the world': [{ ipBlock: { cidr: '@world-4' } }],
  'nobody there is': [{ podSelector: { matchLabels: { pod: 'nobody' } } }],
};

const ports: Record<string, object[] | undefined> = {
  'any port': undefined,
  'TCP 80': [{ protocol: 'TCP', port: 80 }],
  'TCP by default': [{ port: 81 }],
  'UDP 80': [{ protocol: 'UDP', port: 80 }],
  'the port named web': [{ port: 'web' }],
  'ports 80 to 81': [{ protocol: 'TCP', port: 80, endPort: 81 }],
  'all of UDP': [{ protocol: 'UDP' }],
  'SCTP 80 and TCP 81': [{ protocol: 'SCTP', port: 80 }, { port: 81 }],
};

/** Peers that are crossed with all ports; the others meet two kinds of ports. */
const crossed = ['anyone', 'pods a', 'pods b of namespaces inside', 'a block with an exception'];

/** At least 200 cases, always the same ones in the same order. */
export function generateCases(): PolicyCase[] {
  const cases: PolicyCase[] = [];
  for (const direction of ['ingress', 'egress'] as const) {
    for (const [peerName, peer] of Object.entries(peers)) {
      for (const [i, [portName, port]] of Object.entries(ports).entries()) {
        if (!crossed.includes(peerName) && i % 4 !== cases.length % 4 && portName !== 'TCP 80') continue;
        const rule = { ...(peer && { [direction === 'ingress' ? 'from' : 'to']: peer }), ...(port && { ports: port }) };
        const spec = { podSelector: selectorOf(cases.length), policyTypes: [typeOf(direction)], [direction]: [rule] };
        add(`${direction}: ${peerName}, ${portName}`, [policy('x', 'one', spec)]);
      }
    }
  }
  for (const [name, policies] of Object.entries(combinations())) add(name, policies);
  return cases;

  function add(name: string, policies: PolicyCase['policies']): void {
    cases.push({ name, policies, probes: probesOf(cases.length) });
  }
}

/** The pods that a case's policy selects: each pod in turn, all of them now and then. */
function selectorOf(number: number): object {
  return number % 5 === 0 ? {} : { matchLabels: { pod: 'abc'[number % 3] } };
}

/** How policies add up, what is isolated, and what policyTypes means. */
function combinations(): Record<string, PolicyCase['policies']> {
  const found: Record<string, PolicyCase['policies']> = {};
  const types = [undefined, [], ['Ingress'], ['Egress'], ['Ingress', 'Egress']];
  for (const policyTypes of types) {
    for (const rules of [
      {},
      { ingress: [{}] },
      { egress: [{}] },
      { ingress: [], egress: [{ ports: [{ port: 80 }] }] },
    ]) {
      const spec = { podSelector: {}, ...(policyTypes && { policyTypes }), ...rules };
      found[`policyTypes ${JSON.stringify(policyTypes)} with ${JSON.stringify(rules)}`] = [policy('x', 'types', spec)];
    }
  }
  const names = Object.keys(peers);
  const kinds = Object.keys(ports);
  for (let i = 0; found[`pair 63`] === undefined; i++) {
    const pick = (n: number): { from?: object[]; ports?: object[] } => {
      const from = peers[names[(i * 7 + n * 5) % names.length]!];
      const port = ports[kinds[(i * 3 + n) % kinds.length]!];
      return { ...(from && { from }), ...(port && { ports: port }) };
    };
    const { from: to, ports: out } = pick(2);
    found[`pair ${i}`] = [
      policy('x', 'first', { podSelector: selectorOf(i), ingress: [pick(0), pick(1)] }),
      policy('xyz'[i % 3]!, 'second', {
        podSelector: selectorOf(i + 1),
        policyTypes: i % 2 === 0 ? ['Ingress', 'Egress'] : ['Egress'],
        ingress: [pick(3)],
        egress: [{ ...(to && { to }), ...(out && { ports: out }) }],
      }),
    ];
  }
  return found;
}

/** Some of all connections, other ones for each case, so that together the cases try them all. */
export function probesOf(number: number): Omit<Probe, 'expect'>[] {
  const pods = Object.keys(caseWorld.pods);
  const ends = [...pods, 'world', 'host', 'remote-node'];
  const kinds = [
    { protocol: 'TCP', port: 80 },
    { protocol: 'TCP', port: 81 },
    { protocol: 'UDP', port: 80 },
    { protocol: 'TCP', port: 82 },
    { protocol: 'ICMP' },
    { protocol: 'SCTP', port: 80 },
  ] as const;
  const probes: Omit<Probe, 'expect'>[] = [];
  for (const [i, pod] of pods.entries()) {
    for (const [j, end] of ends.entries()) {
      if (pod === end) continue;
      const kind = kinds[(i + j + number) % kinds.length]!;
      probes.push({ from: pod, to: end, ...kind });
      if (!pods.includes(end)) probes.push({ from: end, to: pod, ...kind });
    }
  }
  return probes;
}

function policy(namespace: string, name: string, spec: object): PolicyCase['policies'][number] {
  return { metadata: { namespace, name }, spec };
}

function typeOf(direction: 'ingress' | 'egress'): string {
  return direction === 'ingress' ? 'Ingress' : 'Egress';
}
