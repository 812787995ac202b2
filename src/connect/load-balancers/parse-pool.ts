// A CiliumLoadBalancerIPPool as a row, and which pools are in each other's way.
import { type LabelSelector, parseSelector, selectorMatches } from '../../core/labels.ts';
import { type AddressRange, blockRange, mergeRanges, overlap, type PoolBlock, rangeText } from './address-range.ts';

/** A pool of addresses for services. The primary key is `name`. */
export interface PoolRow {
  readonly name: string;
  /** ISO time; the older pool keeps addresses that two have. */
  readonly createdAt: string;
  readonly generation: number;
  /** Gives no new addresses; those given stay. */
  readonly disabled: boolean;
  readonly ranges: readonly AddressRange[];
  /** Undefined: for every service. */
  readonly selector?: LabelSelector;
  /** What was ignored, and why. A pool whose selector cannot be read selects nothing. */
  readonly problems: readonly string[];
}

/** The fields of the object that are read. */
export interface PoolObject {
  readonly metadata: { readonly name: string; readonly creationTimestamp?: string; readonly generation?: number };
  readonly spec?: {
    readonly blocks?: readonly PoolBlock[];
    readonly allowFirstLastIPs?: string;
    readonly disabled?: boolean;
    readonly serviceSelector?: unknown;
  };
}

/** Labels that a selector may ask for although no Service carries them. */
const nameLabels = {
  namespace: 'io.kubernetes.service.namespace',
  name: 'io.kubernetes.service.name',
} as const;

/** Reads a pool. */
export function parsePool(object: PoolObject): PoolRow {
  const { metadata, spec = {} } = object;
  const problems: string[] = [];
  const ranges = (spec.blocks ?? []).flatMap((block) => {
    const range = blockRange(block, spec.allowFirstLastIPs !== 'No');
    if (range.ok) return range.value;
    problems.push(range.reason);
    return [];
  });
  const before = problems.length;
  const selector =
    spec.serviceSelector == null ? undefined : parseSelector(spec.serviceSelector, 'spec.serviceSelector', problems);
  return {
    name: metadata.name,
    createdAt: metadata.creationTimestamp ?? '',
    generation: metadata.generation ?? 0,
    disabled: spec.disabled === true,
    // A selector that is only partly understood would select more than was meant.
    ranges: selector !== undefined && problems.length > before ? [] : mergeRanges(ranges),
    ...(selector === undefined ? {} : { selector }),
    problems,
  };
}

/** Whether a pool is for a service. */
export function poolSelects(
  pool: PoolRow,
  service: { readonly namespace: string; readonly name: string; readonly labels: Readonly<Record<string, string>> },
): boolean {
  if (pool.selector === undefined) return true;
  return selectorMatches(pool.selector, {
    ...service.labels,
    [nameLabels.namespace]: service.namespace,
    [nameLabels.name]: service.name,
  });
}

/** Pools in the order in which they are asked for addresses: the oldest first. */
export function inOrderOfAge(pools: Iterable<PoolRow>): PoolRow[] {
  return [...pools].sort((a, b) =>
    a.createdAt !== b.createdAt ? (a.createdAt < b.createdAt ? -1 : 1) : a.name < b.name ? -1 : 1,
  );
}

/** For each pool that has addresses of an older one, why it is not used. `pools` in order of age. */
export function poolConflicts(pools: readonly PoolRow[]): Map<string, string> {
  const conflicts = new Map<string, string>();
  const taken: PoolRow[] = [];
  for (const pool of pools) {
    for (const older of taken) {
      const found = overlap(pool.ranges, older.ranges);
      if (found === undefined) continue;
      conflicts.set(
        pool.name,
        `${rangeText(found[0])} overlaps with ${rangeText(found[1])} of pool ${older.name}, which is older`,
      );
      break;
    }
    if (!conflicts.has(pool.name)) taken.push(pool);
  }
  return conflicts;
}
