// The pod addresses of one node and family: hands them out in turn, lets a freed one rest before it is used again, so
// that whoever still has it in a cache does not reach a stranger. Pure but for the clock that is passed in.
import { formatAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import { natAddress } from './nat-address.ts';

/** One address that is taken, or resting after it was freed. */
export interface Lease {
  readonly address: string;
  readonly owner: string;
  /** When it was freed; undefined while it is in use. */
  readonly freedAtMs?: number;
}

/** How full a pool is. */
export interface PoolUsage {
  readonly cidr: string;
  readonly capacity: number;
  readonly used: number;
  readonly resting: number;
}

/** The addresses of one block. */
export interface AddressPool {
  readonly cidr: string;
  /** A free address for this owner; the one it has, if it has one; undefined when none is left. */
  allocate(owner: string): string | undefined;
  /** Takes a particular address, as after a restart. False when another owner has it or it is not of this block. */
  reserve(address: string, owner: string): boolean;
  /** Frees what the owner has. It rests before it is given out again. */
  release(owner: string): string | undefined;
  /** An address that was freed before a restart goes on resting. */
  rest(lease: Lease): void;
  leases(): Lease[];
  usage(): PoolUsage;
}

/** Freed addresses rest this long. */
export const defaultRestMs = 60_000;

/** An IPv6 block is larger than any node: this many addresses of it are used. */
const maxAddresses = 65_534;

/** The pool of a block. The first and last address are left out, as networks have always used them, and the one that the
 * node keeps for translating. */
export function createAddressPool(cidr: string, options: { nowMs: () => number; restMs?: number }): AddressPool {
  const parsed = parseCidr(cidr);
  if (!parsed.ok) throw new Error(`not a block: ${cidr}: ${parsed.reason}`);
  const { family, bytes: base, prefixBits } = parsed.value;
  const restMs = options.restMs ?? defaultRestMs;
  const hostBits = (family === 4 ? 32 : 128) - prefixBits;
  const size = hostBits >= 16 ? 65_536 : 2 ** hostBits;
  const kept = natAddress(cidr) === undefined ? 0 : 1;
  const capacity = (size <= 2 ? size : Math.min(size - 2, maxAddresses)) - kept;
  const first = size <= 2 ? 0 : 1;
  const byAddress = new Map<string, { owner: string; freedAtMs?: number }>();
  const byOwner = new Map<string, string>();
  let next = 0;

  function nth(index: number): string {
    const bytes = Uint8Array.from(base);
    const last = bytes.length - 1;
    const offset = first + index;
    bytes[last] = bytes[last]! | (offset & 0xff);
    bytes[last - 1] = bytes[last - 1]! | (offset >> 8);
    return formatAddress({ family, bytes });
  }

  function contains(address: string): boolean {
    const given = parseAddress(address);
    if (!given.ok || given.value.family !== family) return false;
    for (let bit = 0; bit < prefixBits; bit++) {
      if (((given.value.bytes[bit >> 3]! ^ base[bit >> 3]!) >> (7 - (bit & 7))) & 1) return false;
    }
    return true;
  }

  function free(address: string): boolean {
    const lease = byAddress.get(address);
    if (lease === undefined) return true;
    return lease.freedAtMs !== undefined && options.nowMs() - lease.freedAtMs >= restMs;
  }

  function take(address: string, owner: string): void {
    byAddress.set(address, { owner });
    byOwner.set(owner, address);
  }

  return {
    cidr,
    allocate(owner) {
      const has = byOwner.get(owner);
      if (has !== undefined) return has;
      for (let tried = 0; tried < capacity; tried++) {
        const address = nth(next);
        next = (next + 1) % capacity;
        if (!free(address)) continue;
        take(address, owner);
        return address;
      }
      return undefined;
    },
    reserve(address, owner) {
      const lease = byAddress.get(address);
      if (!contains(address) || (lease !== undefined && lease.freedAtMs === undefined && lease.owner !== owner))
        return false;
      const old = byOwner.get(owner);
      if (old !== undefined && old !== address) byAddress.set(old, { owner, freedAtMs: options.nowMs() });
      take(address, owner);
      return true;
    },
    release(owner) {
      const address = byOwner.get(owner);
      if (address === undefined) return undefined;
      byOwner.delete(owner);
      byAddress.set(address, { owner, freedAtMs: options.nowMs() });
      return address;
    },
    rest({ address, owner, freedAtMs }) {
      if (freedAtMs !== undefined && contains(address) && !byAddress.has(address))
        byAddress.set(address, { owner, freedAtMs });
    },
    leases: () => [...byAddress].map(([address, lease]) => ({ address, ...lease })),
    usage() {
      let used = 0;
      let resting = 0;
      for (const [address, lease] of byAddress) {
        if (lease.freedAtMs === undefined) used++;
        else if (free(address)) byAddress.delete(address);
        else resting++;
      }
      return { cidr, capacity, used, resting };
    },
  };
}
