// One rule of a policy that selects an endpoint of this node, made ready for compiling.
import {
  type Direction,
  type NamedPort,
  type OwnNodeSpared,
  type PolicyPeer,
  type PolicyRow,
  type PolicyRule,
  policyKey,
  type RuleOrigin,
  rulePlace,
} from '../../core/rows.ts';
import { anything, type PortPrefix, portRangePrefixes, protocolPrefix } from './port-prefix.ts';
import { type Ranked, rankOf } from './precedence.ts';

/** Somebody whom a verdict names, with a canonical text to know it by. */
export interface Speaker {
  readonly origin: RuleOrigin;
  readonly originKey: string;
}

/** A policy and the identities of this node's endpoints that it selects. */
export interface LocalPolicy {
  readonly row: PolicyRow;
  readonly subjects: Set<number>;
  readonly rules: Readonly<Record<Direction, CompiledRule[]>>;
  /** Who speaks when the policy isolates. */
  readonly isolation: Readonly<Record<Direction, Speaker>>;
}

/** A rule; its policy may be replaced by a newer version that holds the same rule. */
export interface CompiledRule extends Speaker, Ranked {
  /** Orders rules, and tells them apart while the process lives. */
  readonly id: number;
  policy: LocalPolicy;
  readonly direction: Direction;
  readonly staged: boolean;
  /** Undefined: any peer. */
  readonly peers: readonly PolicyPeer[] | undefined;
  readonly sparesOwnNode: OwnNodeSpared | undefined;
  /** The ports that need no pod to resolve them. */
  readonly prefixes: readonly PortPrefix[];
  readonly portNames: readonly { readonly name: string; readonly protocol: NamedPort['protocol'] }[];
}

/** Makes a rule ready. */
export function compileRule(policy: LocalPolicy, direction: Direction, rule: PolicyRule, id: number): CompiledRule {
  const { row } = policy;
  return {
    id,
    policy,
    direction,
    staged: row.staged,
    tier: row.tier,
    action: rule.action,
    rank: row.tier === 'normal' ? '' : rankOf(row.priority, row.key, rule.index),
    ...speakerOf(row, direction, rule),
    peers: rule.peers,
    sparesOwnNode: rule.sparesOwnNode,
    prefixes:
      rule.ports === undefined
        ? [anything]
        : rule.ports.flatMap((port) => {
            if (port.kind === 'all') return [protocolPrefix(port.protocol)];
            return port.kind === 'range' ? portRangePrefixes(port.protocol, port.first, port.last) : [];
          }),
    portNames: (rule.ports ?? []).flatMap((port) =>
      port.kind === 'named' ? [{ name: port.name, protocol: port.protocol }] : [],
    ),
  };
}

/** Who speaks when a rule does; without a rule, the policy's isolation. */
export function speakerOf(row: PolicyRow, direction: Direction, rule?: PolicyRule): Speaker {
  const origin = originOf(row, direction, rule);
  const { kind, namespace, name, uid } = row;
  const place = rulePlace(origin) ?? `${row.spec ?? ''}${direction}`;
  return { origin, originKey: `${policyKey(kind, namespace, name)}/${uid ?? ''}/${place}/${row.log ?? ''}` };
}

/** How a verdict names a rule, or without one the policy's isolation. */
export function originOf(row: PolicyRow, direction: Direction, rule?: PolicyRule): RuleOrigin {
  const { kind, namespace, name, uid, spec, log } = row;
  return {
    kind,
    namespace,
    name,
    ...(uid !== undefined && { uid }),
    direction,
    ruleIndex: rule?.index ?? -1,
    ...(rule !== undefined && rule.list !== direction && { list: rule.list }),
    ...(spec !== undefined && { spec }),
    ...(log !== undefined && { log }),
  };
}
