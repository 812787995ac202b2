// A number for a set of policies that does not depend on their order, so that a node can say in a few bytes which policies
// it enforces, and the operator knows which of the sets that it has seen that was.
import { hash } from 'node:crypto';
import type { PolicyObjectRow } from '../../core/rows.ts';

/** What makes a policy another one: not its status. */
export type PolicyVersion = Pick<PolicyObjectRow, 'key' | 'uid' | 'generation'>;

/** A digest that follows a set. */
export interface PolicyDigest {
  /** Takes a policy's newest version, or that it is gone. True when the set is another one now. */
  set(key: string, version: PolicyVersion | undefined): boolean;
  readonly text: string;
}

const mask = (1n << 64n) - 1n;

/** Makes the digest of no policies. */
export function createPolicyDigest(): PolicyDigest {
  const parts = new Map<string, bigint>();
  let sum = 0n;
  return {
    set(key, version) {
      const before = parts.get(key) ?? 0n;
      const now = version === undefined ? 0n : numberOf(version);
      if (before === now) return false;
      if (version === undefined) parts.delete(key);
      else parts.set(key, now);
      sum = (sum - before + now) & mask;
      return true;
    },
    get text() {
      return `${parts.size}-${sum.toString(16).padStart(16, '0')}`;
    },
  };
}

function numberOf({ key, uid = '', generation = 0 }: PolicyVersion): bigint {
  return BigInt(`0x${hash('sha256', `${key} ${uid} ${generation}`, 'hex').slice(0, 16)}`);
}
