// Reads a policy of any kind, told apart by `kind`.
import { ignoredLabelKeys } from '../../core/identity.ts';
import type { PolicyKind } from '../../core/rows.ts';
import { parseCiliumPolicy } from './parse-cilium-policy.ts';
import { parseClusterNetworkPolicy } from './parse-cluster-network-policy.ts';
import { parseNetworkPolicy } from './parse-network-policy.ts';
import type { ParsedPolicy } from './policy-reader.ts';

type WrittenKind = Exclude<PolicyKind, 'Builtin'>;

const parsers: Readonly<Record<WrittenKind, (given: unknown, ignoredLabels: readonly string[]) => ParsedPolicy>> = {
  NetworkPolicy: parseNetworkPolicy,
  CiliumNetworkPolicy: parseCiliumPolicy,
  CiliumClusterwideNetworkPolicy: parseCiliumPolicy,
  ClusterNetworkPolicy: parseClusterNetworkPolicy,
};

/** The kinds that can be read. */
export const policyKinds = Object.keys(parsers) as readonly WrittenKind[];

/** Whether a text is the kind of a policy. */
export function isPolicyKind(kind: unknown): kind is WrittenKind {
  return typeof kind === 'string' && Object.hasOwn(parsers, kind);
}

/** Parses a policy; undefined when its kind is not one of a policy. */
export function parsePolicy(given: unknown, ignoredLabels = ignoredLabelKeys): ParsedPolicy | undefined {
  const kind = typeof given === 'object' && given !== null ? (given as { kind?: unknown }).kind : undefined;
  return isPolicyKind(kind) ? parsers[kind](given, ignoredLabels) : undefined;
}
