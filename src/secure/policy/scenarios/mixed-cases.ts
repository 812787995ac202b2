// Sets of policies of all kinds at once, drawn by chance from a fixed seed: how NetworkPolicy, Cilium's policies with their
// denials and ClusterNetworkPolicy with its tiers act on one pod together. The pods are those of generate-cases.ts, and
// the outcome of each probe is the evaluator's to say.
import { type PolicyCase, probesOf } from './generate-cases.ts';

/** Numbers from 0 to 1, always the same for a seed. */
function createChance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

type Manifest = PolicyCase['policies'][number];
type Direction = 'ingress' | 'egress';

const namespaces = ['x', 'y', 'z'];
const namespaceKey = 'k8s:io.kubernetes.pod.namespace';
const zoneKey = 'io.cilium.k8s.namespace.labels.zone';

/** `count` cases; case number i is the same whatever the count. */
export function mixedCases(count: number): PolicyCase[] {
  return Array.from({ length: count }, (_, i) => mixedCase(i));
}

function mixedCase(number: number): PolicyCase {
  const chance = createChance(number * 7919 + 1);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(chance() * list.length)]!;
  const maybe = (probability: number): boolean => chance() < probability;
  const directions = (): Direction[] => pick([['ingress'], ['egress'], ['ingress', 'egress']] as Direction[][]);

  const podSelector = (): object =>
    pick([
      {},
      { matchLabels: { pod: 'a' } },
      { matchLabels: { pod: 'b' } },
      { matchExpressions: [{ key: 'pod', operator: 'In', values: ['a', 'c'] }] },
      { matchExpressions: [{ key: 'role', operator: 'DoesNotExist' }] },
    ]);
  const namespaceSelector = (): object =>
    pick([{}, { matchLabels: { zone: 'in' } }, { matchExpressions: [{ key: 'guarded', operator: 'Exists' }] }]);

  function networkPolicy(name: string): Manifest {
    const wanted = directions();
    const rule = (word: 'from' | 'to'): object => ({
      ...(maybe(0.7) && {
        [word]: [
          pick<object>([
            { podSelector: podSelector() },
            { namespaceSelector: namespaceSelector() },
            { namespaceSelector: namespaceSelector(), podSelector: podSelector() },
            { ipBlock: { cidr: '@y/b' } },
            { ipBlock: { cidr: '@x/a-8', except: ['@x/c'] } },
          ]),
        ],
      }),
      ...(maybe(0.6) && { ports: [pick<object>([{ port: 80 }, { port: 81, endPort: 82 }, { port: 'web' }])] }),
    });
    return {
      metadata: { namespace: pick(namespaces), name },
      spec: {
        podSelector: podSelector(),
        policyTypes: wanted.map((direction) => (direction === 'ingress' ? 'Ingress' : 'Egress')),
        ...(wanted.includes('ingress') && { ingress: maybe(0.8) ? [rule('from')] : [] }),
        ...(wanted.includes('egress') && { egress: maybe(0.8) ? [rule('to')] : [] }),
      },
    };
  }

  function ciliumPeers(word: 'from' | 'to'): object {
    return pick<() => object>([
      () => ({}),
      () => ({ [`${word}Endpoints`]: [podSelector()] }),
      () => ({
        [`${word}Endpoints`]: [{ matchLabels: { 'k8s:pod': pick(['a', 'b', 'c']), [namespaceKey]: pick(namespaces) } }],
      }),
      () => ({
        [`${word}Endpoints`]: [{ matchLabels: { [zoneKey]: 'in' } }, { matchLabels: { 'any:role': 'client' } }],
      }),
      () => ({ [`${word}Entities`]: [pick(['world', 'cluster', 'all', 'host', 'remote-node', 'none'])] }),
      () => ({ [`${word}CIDR`]: ['@world-4'] }),
      // Blocks of Cilium's policies do not match pods.
      () => ({ [`${word}CIDRSet`]: [{ cidr: '@x/a-8', except: ['@x/c'] }] }),
      () => ({ [`${word}Endpoints`]: [] }),
    ])();
  }

  function ciliumPorts(): object {
    return pick<() => object>([
      () => ({}),
      () => ({ toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] }),
      () => ({ toPorts: [{ ports: [{ port: '80', protocol: 'ANY' }, { port: '82' }] }] }),
      () => ({ toPorts: [{ ports: [{ port: '80', endPort: 81, protocol: 'TCP' }] }] }),
      () => ({ toPorts: [{ ports: [{ port: 'web', protocol: 'TCP' }] }] }),
      () => ({ toPorts: [{ ports: [{ port: '0', protocol: 'UDP' }] }] }),
      () => ({ icmps: [{ fields: [{ type: 8 }, { family: 'IPv6', type: 'EchoRequest' }] }] }),
    ])();
  }

  function ciliumPolicy(name: string, clusterwide: boolean): Manifest {
    const wanted = directions();
    const rules = (word: 'from' | 'to'): object[] =>
      Array.from({ length: maybe(0.3) ? 2 : 1 }, () => ({ ...ciliumPeers(word), ...ciliumPorts() }));
    const lists = wanted.flatMap((direction): [string, object[]][] => {
      const word = direction === 'ingress' ? 'from' : 'to';
      const both: [string, object[]][] = [];
      if (maybe(0.75)) both.push([direction, rules(word)]);
      if (both.length === 0 || maybe(0.4)) both.push([`${direction}Deny`, rules(word)]);
      return both;
    });
    return {
      apiVersion: 'cilium.io/v2',
      kind: clusterwide ? 'CiliumClusterwideNetworkPolicy' : 'CiliumNetworkPolicy',
      metadata: clusterwide ? { name } : { namespace: pick(namespaces), name },
      spec: {
        endpointSelector: clusterwide
          ? { matchLabels: { [namespaceKey]: pick(namespaces) }, ...(maybe(0.5) && { matchExpressions: [] }) }
          : podSelector(),
        ...(maybe(0.3) && { enableDefaultDeny: { ingress: maybe(0.5), egress: maybe(0.5) } }),
        ...Object.fromEntries(lists),
      },
    };
  }

  function clusterPolicy(name: string): Manifest {
    const peer = (direction: Direction): object =>
      pick<object>([
        { namespaces: namespaceSelector() },
        { pods: { namespaceSelector: namespaceSelector(), podSelector: podSelector() } },
        ...(direction === 'egress' ? [{ networks: ['@world-4', '@y/b'] }] : []),
      ]);
    const rule = (direction: Direction): object => {
      const to = peer(direction);
      const named = !('networks' in to);
      return {
        action: pick(['Accept', 'Deny', 'Pass']),
        [direction === 'ingress' ? 'from' : 'to']: [to],
        ...(maybe(0.5) && {
          protocols: [
            pick<object>([
              { tcp: { destinationPort: { number: 80 } } },
              { tcp: { destinationPort: { range: { start: 80, end: 82 } } } },
              { udp: { destinationPort: { number: 80 } } },
              ...(named ? [{ destinationNamedPort: 'web' }] : []),
            ]),
          ],
        }),
      };
    };
    return {
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name },
      spec: {
        tier: pick(['Admin', 'Baseline']),
        priority: pick([1, 5, 5]),
        // Only the pods of the cases: nothing else in the cluster is to be cut off.
        subject: { namespaces: { matchExpressions: [{ key: 'zone', operator: 'Exists' }] } },
        ...Object.fromEntries(
          directions().map((direction) => [
            direction,
            Array.from({ length: 1 + Math.floor(chance() * 3) }, () => rule(direction)),
          ]),
        ),
      },
    };
  }

  const policies = Array.from({ length: 1 + Math.floor(chance() * 4) }, (_, i) => {
    const name = `mixed-${i}`;
    return pick([
      () => networkPolicy(name),
      () => ciliumPolicy(name, false),
      () => ciliumPolicy(name, false),
      () => ciliumPolicy(name, true),
      () => clusterPolicy(name),
    ])();
  });
  return { name: `mixed case ${number}`, policies, probes: probesOf(number) };
}
