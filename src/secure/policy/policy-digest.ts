// A number for a set of things that does not depend on their order, so that a node can say in a few bytes which policies
// it enforces, and with what they refer to, and the operator knows which of the sets that it has seen that was.
import { hash } from 'node:crypto';
import type { CidrGroupRow, NamespaceRow, PolicyObjectRow, PolicyServiceRow } from '../../core/rows.ts';

/** A digest that follows a set. */
export interface SetDigest {
  /** Takes the content of what has this key, or that it is gone. True when the set is another one now. */
  set(key: string, content: string | undefined): boolean;
  readonly text: string;
}

const mask = (1n << 64n) - 1n;

/** Makes the digest of an empty set. */
export function createSetDigest(): SetDigest {
  const parts = new Map<string, bigint>();
  let sum = 0n;
  return {
    set(key, content) {
      const before = parts.get(key) ?? 0n;
      const now = content === undefined ? 0n : numberOf(`${key} ${content}`);
      if (before === now) return false;
      if (content === undefined) parts.delete(key);
      else parts.set(key, now);
      sum = (sum - before + now) & mask;
      return true;
    },
    get text() {
      return `${parts.size}-${sum.toString(16).padStart(16, '0')}`;
    },
  };
}

function numberOf(text: string): bigint {
  return BigInt(`0x${hash('sha256', text, 'hex').slice(0, 16)}`);
}

/**
 * What makes a policy another one: not its status. An annotation makes no new generation, and whether a policy is staged
 * is said by one.
 */
export function policyContent(row: Pick<PolicyObjectRow, 'uid' | 'generation' | 'enforcement'>): string {
  return `${row.uid ?? ''} ${row.generation ?? 0} ${row.enforcement}`;
}

/** What makes policies that leave it to their namespace others; those of the whole cluster are in the namespace ''. */
export function stagingContent(staged: boolean | undefined): string | undefined {
  return staged === undefined ? undefined : String(staged);
}

/** What makes policies that name a group others. */
export function groupContent({ labels, cidrs, problems }: CidrGroupRow): string {
  return JSON.stringify([sorted(labels), cidrs, problems.length]);
}

/** What makes policies that name a service others. */
export function serviceContent({ labels, selector, addresses }: PolicyServiceRow): string {
  return JSON.stringify([sorted(labels), selector && sorted(selector), addresses]);
}

function sorted(labels: NamespaceRow['labels']): [string, string][] {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
}
