// Reads a policy of any kind, told apart by `kind`.
import { ignoredLabelKeys } from '../../core/identity.ts';
import type { PolicyKind } from '../../core/rows.ts';
import { parseCiliumPolicy } from './parse-cilium-policy.ts';
import { parseClusterNetworkPolicy } from './parse-cluster-network-policy.ts';
import { parseNetworkPolicy } from './parse-network-policy.ts';
import { closeSpec, overPolicyLimit } from './policy-limits.ts';
import type { Fields, ParsedPolicy } from './policy-reader.ts';

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
  if (!isPolicyKind(kind)) return undefined;
  const { row, problems } = parsers[kind](given, ignoredLabels);
  if (row === undefined) return { problems };
  const { generation, creationTimestamp } = (given as { metadata: Fields }).metadata;
  const dated = {
    ...row,
    ...(typeof generation === 'number' && { generation }),
    ...(typeof creationTimestamp === 'string' && { created: creationTimestamp }),
  };
  const over = row.error === undefined ? overPolicyLimit(row, row.specs) : undefined;
  if (over === undefined) return { row: dated, problems };
  return { row: { ...dated, specs: row.specs.map(closeSpec), unenforced: [], error: over }, problems: [over] };
}
