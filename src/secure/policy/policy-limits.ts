// How much one policy, and one namespace, may ask of every node. Whoever may write policies in a namespace could else fill
// tables that all namespaces share. A policy over a limit is refused like one that is not understood: closed, with the
// limit, the number and what to do in its error. Other policies are untouched.
import type { PolicyObjectRow, PolicyRule, WrittenPeer, WrittenPolicy } from '../../core/rows.ts';
import { portRangePrefixes } from './port-prefix.ts';

/** The limits. A policy that people write by hand is two orders of magnitude below each. */
export const policyLimits = {
  /** Rules of a policy. Each is compared with every peer that it names; objects of the API hold some thousands. */
  rules: 1_000,
  /** Peers of a policy: selectors, entities, blocks, services, once more when groups, services and nodes are filled in. */
  peers: 10_000,
  /** Blocks of a policy, exceptions included, filled in. Each parts the addresses inside of it, on every node. */
  blocks: 10_000,
  /** Labels, and values of expressions, that the selectors of a policy name. Each identity is compared with them. */
  selectorTerms: 20_000,
  /** Prefixes of ports of a policy: a range is up to 30. Each is a row of `policy_ports` for each set of rules around it. */
  portPrefixes: 8_192,
  /** Policies of a namespace, of each kind for itself. The oldest are those that count. */
  policiesPerNamespace: 2_000,
} as const;

type Rules = readonly PolicyRule<WrittenPeer>[];

/** What is over its limit in a policy, as a problem to show; undefined when nothing is. */
export function overPolicyLimit(
  specs: readonly { readonly ingress: Rules; readonly egress: Rules }[],
): string | undefined {
  const { rules, peers, blocks, selectorTerms, portPrefixes } = policyLimits;
  const used = countPolicy(specs);
  if (used.rules > rules) return over('rules', used.rules, rules, 'split it into several policies');
  if (used.peers > peers) {
    return over('peers', used.peers, peers, 'select by labels that they share, or split it into several policies');
  }
  if (used.blocks > blocks)
    return over('blocks', used.blocks, blocks, 'join blocks that lie side by side, or split it');
  if (used.selectorTerms > selectorTerms) {
    return over(
      'labels and values in selectors',
      used.selectorTerms,
      selectorTerms,
      'select by a label that they share',
    );
  }
  if (used.portPrefixes > portPrefixes) {
    const how = 'join ports into ranges, and let ranges begin at multiples of a power of two';
    return over('prefixes of ports', used.portPrefixes, portPrefixes, how);
  }
  return undefined;
}

function over(what: string, used: number, limit: number, how: string): string {
  return `has ${used} ${what}; ${limit} are allowed for one policy: ${how}`;
}

function countPolicy(specs: readonly { readonly ingress: Rules; readonly egress: Rules }[]) {
  const used = { rules: 0, peers: 0, blocks: 0, selectorTerms: 0, portPrefixes: 0 };
  for (const { ingress, egress } of specs) {
    for (const { peers, ports } of [...ingress, ...egress]) {
      used.rules++;
      for (const peer of peers ?? []) {
        used.peers++;
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

/** A policy that was refused: it isolates whom it selects, in both directions, and allows nothing. */
export function closeSpec<S extends WrittenPolicy>(spec: S): S {
  return {
    ...spec,
    tier: 'normal',
    priority: 0,
    isolates: { ingress: true, egress: true },
    ingress: [],
    egress: [],
  };
}

/** The policies of one namespace and kind that are over the limit: the newest. With what to show of each. */
export function overNamespaceLimit(
  policies: readonly Pick<PolicyObjectRow, 'key' | 'created' | 'kind' | 'namespace'>[],
): Map<string, string> {
  const limit = policyLimits.policiesPerNamespace;
  if (policies.length <= limit) return new Map();
  const oldestFirst = [...policies].sort((a, b) => {
    const [x, y] = [`${a.created ?? ''} ${a.key}`, `${b.created ?? ''} ${b.key}`];
    return x < y ? -1 : x > y ? 1 : 0;
  });
  return new Map(
    oldestFirst.slice(limit).map(({ key, kind, namespace }) => {
      const head = `is one of ${policies.length} objects of kind ${kind} in the namespace ${namespace}`;
      return [key, `${head}; the oldest ${limit} count: join policies, or delete those that are not needed`];
    }),
  );
}
