// One rule of a policy that selects a pod of this node, made ready for compiling.
import {
  type Direction,
  type NamedPort,
  type NetworkPolicyRow,
  type PolicyPeer,
  protocolNumbers,
  type RuleOrigin,
} from '../../core/rows.ts';
import { anything, type PortPrefix, portRangePrefixes, protocolPrefix } from './port-prefix.ts';

/** Somebody whom a verdict names, with a canonical text to know it by. */
export interface Speaker {
  readonly origin: RuleOrigin;
  readonly originKey: string;
}

/** A policy and the identities of this node's pods that it selects. */
export interface LocalPolicy {
  readonly row: NetworkPolicyRow;
  readonly subjects: Set<number>;
  readonly rules: Readonly<Record<Direction, CompiledRule[]>>;
  /** Who speaks when the policy isolates. */
  readonly isolation: Readonly<Record<Direction, Speaker>>;
}

/** A rule; its policy may be replaced by a newer version that holds the same rule. */
export interface CompiledRule extends Speaker {
  /** Orders rules, and tells them apart while the process lives. */
  readonly id: number;
  policy: LocalPolicy;
  readonly direction: Direction;
  readonly staged: boolean;
  readonly peers: readonly PolicyPeer[];
  /** The ports that need no pod to resolve them. */
  readonly prefixes: readonly PortPrefix[];
  readonly portNames: readonly { readonly name: string; readonly protocol: NamedPort['protocol'] }[];
}

/** Makes a rule ready. */
export function compileRule(policy: LocalPolicy, direction: Direction, ruleIndex: number, id: number): CompiledRule {
  const { row } = policy;
  const rule = row[direction][ruleIndex]!;
  return {
    id,
    policy,
    direction,
    staged: row.staged,
    ...speakerOf(row, direction, ruleIndex),
    peers: rule.peers,
    prefixes:
      rule.ports.length === 0
        ? [anything]
        : rule.ports.flatMap((port) => {
            const protocol = protocolNumbers[port.protocol];
            if (port.kind === 'all') return [protocolPrefix(protocol)];
            return port.kind === 'range' ? portRangePrefixes(protocol, port.first, port.last) : [];
          }),
    portNames: rule.ports.flatMap((port) =>
      port.kind === 'named' ? [{ name: port.name, protocol: port.protocol }] : [],
    ),
  };
}

/** Who speaks when a rule does; index -1 stands for the policy's isolation. */
export function speakerOf(row: NetworkPolicyRow, direction: Direction, ruleIndex: number): Speaker {
  const kind = 'NetworkPolicy';
  const { namespace, name, uid } = row;
  return {
    origin: { kind, namespace, name, ...(uid !== undefined && { uid }), direction, ruleIndex },
    originKey: `${kind}/${namespace}/${name}/${uid ?? ''}/${direction}/${ruleIndex}`,
  };
}
