// How much one policy, and one namespace, may ask of every node. Whoever may write policies in a namespace could else fill
// tables that all namespaces share. A policy over a limit is refused like one that is not understood: closed, with the
// limit, the number and what to do in its error. Other policies are untouched.
import { reservedIdentities } from '../../core/identity.ts';
import type {
  Direction,
  OwnNodeSpared,
  PolicyObjectRow,
  PolicyRule,
  WrittenPeer,
  WrittenPolicy,
} from '../../core/rows.ts';
import { portRangePrefixes } from './port-prefix.ts';

/**
 * The limits of one policy. What is written by hand is two orders of magnitude below each. The times are of one core, with
 * 1 000 identities and 15 endpoints of the namespace on the node.
 */
export const policyLimits = {
  /** Rules. A spec without any counts as one, since it is a policy of its own to compare with every identity. */
  rules: 1_000,
  /** Selectors, entities, services, nodes. Each selector is compared with every identity: 1 000 take a second or two. */
  peers: 1_000,
  /** Blocks, exceptions included, groups and services filled in: each is a row of `policy_peer` per endpoint that is selected. */
  blocks: 5_000,
  /** Labels, and values of expressions, that selectors name. */
  selectorTerms: 20_000,
  /** Prefixes of ports: a range is up to 30. Each is a row of `policy_ports` for each set of rules that some peer matches. */
  portPrefixes: 2_048,
} as const;

/**
 * How many rows of `policy_peer` the pods of one namespace may have together on a node, of so many: they grow with the pods of
 * different labels that its policies tell apart, which the limits of policies do not bound.
 */
export function rowsOfNamespace(capacity: number): number {
  return Math.max(Math.floor(capacity / 4), 32_768);
}

/** A policy that is closed has at most so many rows: with more selectors it closes its whole namespace. */
export const closedRowsOfPolicy = 100;

/** The limits of all policies of one kind in a namespace together. The oldest are those that count. */
export const namespaceLimits = {
  policies: 2_000,
  rules: 10_000,
  peers: 10_000,
  blocks: 20_000,
  portPrefixes: 16_384,
} as const;

type Rules = readonly PolicyRule<WrittenPeer>[];
type Specs = readonly { readonly ingress: Rules; readonly egress: Rules }[];

/** Policies of the whole cluster are administrators': they may ask for so much more, since closing them closes everybody. */
const clusterFactor = 10;

/** With more peers than this, all that it refers to filled in, a policy is over some limit in any case. */
export const peersBeyondLimits = (policyLimits.peers + policyLimits.blocks) * clusterFactor;

const remedies: Readonly<Record<keyof typeof policyLimits, readonly [what: string, how: string]>> = {
  rules: ['rules', 'split it into several policies'],
  peers: ['peers', 'select by labels that they share'],
  blocks: ['blocks', 'join blocks that lie side by side'],
  selectorTerms: ['labels and values in selectors', 'select by a label that they share'],
  portPrefixes: ['prefixes of ports', 'join ports into ranges that begin at multiples of a power of two'],
};

/** What is over its limit in a policy, as a problem to show; undefined when nothing is. */
export function overPolicyLimit({ namespace }: { readonly namespace: string }, specs: Specs): string | undefined {
  const used = countPolicy(specs);
  for (const kind of Object.keys(policyLimits) as (keyof typeof policyLimits)[]) {
    const limit = policyLimits[kind] * (namespace === '' ? clusterFactor : 1);
    const [what, how] = remedies[kind];
    if (used[kind] > limit) return `has ${used[kind]} ${what}; ${limit} are allowed for one policy: ${how}`;
  }
  return undefined;
}

function countPolicy(specs: Specs) {
  const used = { rules: 0, peers: 0, blocks: 0, selectorTerms: 0, portPrefixes: 0 };
  for (const { ingress, egress } of specs) {
    if (ingress.length + egress.length === 0) used.rules++;
    for (const { peers, ports } of [...ingress, ...egress]) {
      used.rules++;
      for (const peer of peers ?? []) {
        if (peer.kind !== 'block') used.peers++;
        if ('except' in peer) used.blocks += peer.except.length + (peer.kind === 'block' ? 1 : 0);
        if (!('selector' in peer)) continue;
        used.selectorTerms += Object.keys(peer.selector.matchLabels).length;
        for (const { values } of peer.selector.matchExpressions) used.selectorTerms += Math.max(values.length, 1);
      }
      for (const port of ports ?? []) {
        used.portPrefixes += port.kind === 'range' ? portRangePrefixes(port.protocol, port.first, port.last).length : 1;
      }
    }
  }
  return used;
}

/** A policy that was refused: it isolates whom it selects, in both directions, allows nothing, and denies all where it denied any. */
export function closeSpec<S extends WrittenPolicy>(spec: S): S {
  const denies = (direction: Direction): boolean => spec[direction].some(({ action }) => action === 'deny');
  return closeSpecDenying(spec, denies, true);
}

/**
 * The same where the rules do not tell which directions it denies in. Isolation alone would open what another policy
 * allows and this one denied. For nodes it has to do: a denial wins over what a node cannot do without, and nobody could
 * take such a policy back. Where all rules for ingress could be read (`knowsIngress`), and none that denies is about nodes,
 * the pod's own node is not denied either: it was not, and probes of the kubelet go on.
 */
export function closeSpecDenying<S extends WrittenPolicy>(
  spec: S,
  denies: (direction: Direction) => boolean,
  knowsIngress: boolean,
): S {
  const denying = spec.ingress.filter(({ action }) => action === 'deny');
  const spares = knowsIngress && !denying.some(mayBeNode);
  const spared: OwnNodeSpared = denying.some(mayBeApiServer) ? 'unless-api-server' : 'always';
  const rules = (direction: Direction): PolicyRule<never>[] => {
    if (spec.subject.kind === 'node' || !denies(direction)) return [];
    const first = spec[direction].find(({ action }) => action === 'deny');
    const list = first?.list ?? (spec.kind === 'ClusterNetworkPolicy' ? direction : (`${direction}Deny` as const));
    // Without peers and ports it is about everybody and everything.
    const spare = direction === 'ingress' && spares && { sparesOwnNode: spared };
    return [{ index: first?.index ?? 0, list, action: 'deny', ...spare }];
  };
  return { ...spec, isolates: { ingress: true, egress: true }, ingress: rules('ingress'), egress: rules('egress') };
}

/** Whether a rule may match the node on which the pod runs. */
function mayBeNode({ peers }: PolicyRule<WrittenPeer>): boolean {
  return peers === undefined || peers.some(peerMayBeNode);
}

/** Whether a rule matches the node if the API server answers there. */
function mayBeApiServer({ peers = [] }: PolicyRule<WrittenPeer>): boolean {
  return peers.some(
    (peer) => peer.kind === 'reserved' && peer.identities.includes(reservedIdentities['kube-apiserver']),
  );
}

function peerMayBeNode(peer: WrittenPeer): boolean {
  switch (peer.kind) {
    case 'endpoints':
    case 'cidr-group':
    case 'cidr-groups':
      return false;
    case 'reserved':
      return peer.identities.includes(reservedIdentities.host);
    case 'block':
      return peer.reach !== 'outside';
    case 'nodes':
    case 'service':
    case 'services':
      return true;
  }
}

/** What objects ask for, by their specs: those of a namespace are added up whenever one of them changes. */
const weights = new WeakMap<object, ReturnType<typeof countPolicy>>();

function weightOf({ specs }: { readonly specs: Specs }): ReturnType<typeof countPolicy> {
  const known = weights.get(specs);
  if (known !== undefined) return known;
  const used = countPolicy(specs);
  weights.set(specs, used);
  return used;
}

const names: Readonly<Record<keyof typeof namespaceLimits, string>> = {
  policies: 'policies',
  rules: 'rules',
  peers: 'peers',
  blocks: 'blocks',
  portPrefixes: 'prefixes of ports',
};

/**
 * The policies of one namespace and kind that are over a limit together: the newest. With what to show of each. Their specs
 * count as they are given: with groups, services and nodes filled in they are what nodes have rows for.
 */
export function overNamespaceLimit(
  policies: readonly (Pick<PolicyObjectRow, 'key' | 'created' | 'kind' | 'namespace'> & { readonly specs: Specs })[],
): Map<string, string> {
  const total = { policies: 0, rules: 0, peers: 0, blocks: 0, portPrefixes: 0 };
  const kinds = Object.keys(namespaceLimits) as (keyof typeof namespaceLimits)[];
  const add = (policy: (typeof policies)[number]): void => {
    const used = { ...weightOf(policy), policies: 1 };
    for (const kind of kinds) total[kind] += used[kind];
  };
  const over = (): keyof typeof namespaceLimits | undefined =>
    kinds.find((kind) => total[kind] > namespaceLimits[kind]);
  for (const policy of policies) add(policy);
  const which = over();
  if (which === undefined) return new Map();
  const oldestFirst = [...policies].sort((a, b) => {
    const [x, y] = [`${a.created ?? ''} ${a.key}`, `${b.created ?? ''} ${b.key}`];
    return x < y ? -1 : x > y ? 1 : 0;
  });
  for (const kind of kinds) total[kind] = 0;
  const first = oldestFirst.findIndex((policy) => {
    add(policy);
    return over() !== undefined;
  });
  return new Map(
    oldestFirst.slice(first).map(({ key, kind, namespace }) => {
      // Without the total: it changes with every policy that comes, and each change of a text is an event and a write.
      const head = `policies of kind ${kind} in the namespace ${namespace} have more than ${namespaceLimits[which]}`;
      return [
        key,
        `${head} ${names[which]} together, and the oldest count: join policies, or delete those that are not needed`,
      ];
    }),
  );
}
