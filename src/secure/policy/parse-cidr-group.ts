// Reads a CiliumCIDRGroup. A block that cannot be read is left out and named.
import { formatCidr } from '../../core/ip.ts';
import type { CidrGroupRow } from '../../core/rows.ts';
import { parseCidrOrAddress } from './policy-reader.ts';

interface CidrGroupObject {
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: { readonly externalCIDRs?: readonly unknown[] };
}

/** Parses an API object. */
export function parseCidrGroup(given: unknown): CidrGroupRow {
  const { metadata, spec } = given as CidrGroupObject;
  const problems: string[] = [];
  const cidrs = new Set<string>();
  const list = Array.isArray(spec?.externalCIDRs) ? spec.externalCIDRs : [];
  for (const [i, text] of list.entries()) {
    const parsed = parseCidrOrAddress(text);
    if (parsed.ok) cidrs.add(formatCidr(parsed.value));
    else problems.push(`spec.externalCIDRs[${i}] is not a block: ${parsed.reason}`);
  }
  return { name: metadata.name, labels: metadata.labels ?? {}, cidrs: [...cidrs].sort(), problems };
}
