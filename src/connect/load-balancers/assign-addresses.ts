// Who gets which address: a pure function of the pools and of what services ask for and have. What a service has and may
// keep it keeps; the rest is given in the order of the services' age, so that the order of events does not matter.
import { parseAddress } from '../../core/ip.ts';
import { type AddressRange, addressNumber, addressText, rangeSize } from './address-range.ts';
import { inOrderOfAge, type PoolRow, poolConflicts, poolSelects } from './parse-pool.ts';
import type { AddressRequest } from './parse-request.ts';

/** How a request went; the words are the ecosystem's. */
export type OutcomeReason =
  | 'satisfied'
  | 'no_pool'
  | 'pool_selector_mismatch'
  | 'out_of_ips'
  | 'already_allocated'
  | 'already_allocated_incompatible_service'
  | 'invalid_request';

/** What a service is to have. */
export interface Outcome {
  /** In the order of the service's families, or of its request. */
  readonly addresses: readonly string[];
  readonly reason: OutcomeReason;
  readonly message: string;
}

/** How a pool is used. */
export interface PoolUse {
  readonly total: bigint;
  readonly used: bigint;
  /** Why it gives no addresses: an older pool has some of its. */
  readonly conflict?: string;
}

/** Everything that follows. Services that are not in `services` are to be left as they are. */
export interface Assignment {
  /** Undefined: the service gives back what it has. */
  readonly services: ReadonlyMap<string, Outcome | undefined>;
  readonly pools: ReadonlyMap<string, PoolUse>;
}

interface Failure {
  readonly reason: OutcomeReason;
  readonly message: string;
}

interface PoolState {
  readonly row: PoolRow;
  readonly conflict: string | undefined;
  readonly gives: boolean;
  /** Addresses before this one are not free, by family. */
  readonly next: Map<4 | 6, { range: number; number: bigint }>;
  used: bigint;
}

/** Computes it. `taken`: addresses that are somebody's already, and whose. */
export function assignAddresses(
  poolRows: Iterable<PoolRow>,
  requests: Iterable<AddressRequest>,
  taken: ReadonlyMap<string, string> = new Map(),
): Assignment {
  const ordered = inOrderOfAge(poolRows);
  const conflicts = poolConflicts(ordered);
  const pools = ordered.map((row): PoolState => {
    const conflict = conflicts.get(row.name);
    return { row, conflict, gives: conflict === undefined && !row.disabled, next: new Map(), used: 0n };
  });
  for (const address of taken.keys()) {
    const pool = pools.find((each) => contains(each.row.ranges, address));
    if (pool !== undefined) pool.used++;
  }
  /** Who has an address; several when they share it. */
  const holders = new Map<string, AddressRequest[]>();
  const shared = new Map<string, Set<string>>();
  const given = new Map<string, string[]>();
  const outcomes = new Map<string, Outcome | undefined>();

  const services: AddressRequest[] = [];
  for (const request of requests) {
    if (!request.wanted) outcomes.set(request.key, undefined);
    // Another controller gave it something, or there is no pool at all: not ours to touch.
    else if (request.ours || (pools.length > 0 && request.assigned.length === 0)) services.push(request);
  }
  services.sort((a, b) =>
    a.createdAt !== b.createdAt ? (a.createdAt < b.createdAt ? -1 : 1) : a.key < b.key ? -1 : a.key > b.key ? 1 : 0,
  );

  function hold(address: string, service: AddressRequest): void {
    const list = holders.get(address);
    if (list === undefined) {
      holders.set(address, [service]);
      const pool = pools.find((each) => contains(each.row.ranges, address));
      if (pool !== undefined) pool.used++;
    } else list.push(service);
    const own = given.get(service.key) ?? [];
    own.push(address);
    given.set(service.key, own);
    if (service.sharing === undefined) return;
    const addresses = shared.get(service.sharing.key) ?? new Set();
    addresses.add(address);
    shared.set(service.sharing.key, addresses);
  }

  /** Why a service may not have an address beside those who have it. */
  function clash(address: string, service: AddressRequest): Failure | undefined {
    for (const other of holders.get(address) ?? []) {
      const message = whyNotShared(service, other);
      if (message === undefined) continue;
      const reason = service.sharing === undefined ? 'already_allocated' : 'already_allocated_incompatible_service';
      return { reason, message: `${address} is that of service ${other.key}${message}` };
    }
    return undefined;
  }

  /** Why no pool gives this very address; `keeps`: the service has it already. */
  function refusal(address: string, service: AddressRequest, keeps: boolean): Failure | undefined {
    if (!service.families.includes(familyOf(address)))
      return { reason: 'invalid_request', message: `${address} is of a family that the service does not have` };
    const owner = taken.get(address);
    if (owner !== undefined) return { reason: 'already_allocated', message: `${address} is an address of ${owner}` };
    const having = pools.filter((pool) => contains(pool.row.ranges, address));
    if (having.length === 0) return { reason: 'no_pool', message: `no pool has ${address}` };
    const names = having.map((pool) => pool.row.name).join(', ');
    const selecting = having.filter((pool) => poolSelects(pool.row, service));
    if (selecting.length === 0)
      return {
        reason: 'pool_selector_mismatch',
        message: `${address} is of pool ${names}, which is not for this service`,
      };
    if (!keeps && !selecting.some((pool) => pool.gives))
      return {
        reason: 'no_pool',
        message: `${address} is of pool ${names}, which gives no addresses: it is ${selecting[0]!.conflict === undefined ? 'disabled' : 'in conflict with another'}`,
      };
    return clash(address, service);
  }

  function keep(service: AddressRequest): void {
    const wanted = new Set(service.requested);
    for (const address of service.assigned) {
      const family = familyOf(address);
      if (wanted.size > 0 ? !wanted.has(address) : given.get(service.key)?.some((each) => familyOf(each) === family))
        continue;
      if (given.get(service.key)?.includes(address) || service.problems.length > 0) continue;
      if (refusal(address, service, true) === undefined) hold(address, service);
    }
  }

  function giveRequested(service: AddressRequest): Failure | undefined {
    const failures = service.problems.map((message): Failure => ({ reason: 'invalid_request', message }));
    if (failures.length > 0) return failures[0];
    for (const address of service.requested) {
      if (given.get(service.key)?.includes(address)) continue;
      const failure = refusal(address, service, false);
      if (failure === undefined) hold(address, service);
      else failures.push(failure);
    }
    return failures[0] && { ...failures[0], message: failures.map((each) => each.message).join('; ') };
  }

  function giveAny(service: AddressRequest, family: 4 | 6): Failure | undefined {
    for (const address of service.sharing === undefined ? [] : (shared.get(service.sharing.key) ?? [])) {
      if (familyOf(address) !== family || refusal(address, service, false) !== undefined) continue;
      hold(address, service);
      return undefined;
    }
    const ofFamily = pools.filter((pool) => pool.row.ranges.some((range) => range.family === family));
    const selecting = ofFamily.filter((pool) => poolSelects(pool.row, service));
    const giving = selecting.filter((pool) => pool.gives);
    for (const pool of giving) {
      const address = nextFree(pool, family, (each) => !holders.has(each) && !taken.has(each));
      if (address === undefined) continue;
      hold(address, service);
      return undefined;
    }
    const what = `IPv${family}`;
    if (ofFamily.length === 0) return { reason: 'no_pool', message: `no pool has ${what} addresses` };
    if (selecting.length === 0)
      return { reason: 'pool_selector_mismatch', message: `no pool with ${what} addresses is for this service` };
    if (giving.length === 0)
      return {
        reason: 'no_pool',
        message: `the pools with ${what} addresses are disabled or in conflict: ${names(selecting)}`,
      };
    return { reason: 'out_of_ips', message: `no ${what} address is free in ${names(giving)}` };
  }

  function give(service: AddressRequest): Failure | undefined {
    if (service.requested.length > 0 || service.problems.length > 0) return giveRequested(service);
    const has = (family: 4 | 6) => given.get(service.key)?.some((each) => familyOf(each) === family);
    const failures = service.families.flatMap((family) => (has(family) ? [] : (giveAny(service, family) ?? [])));
    if (failures.length === 0 || (!service.needsAll && failures.length < service.families.length)) return undefined;
    return { ...failures[0]!, message: failures.map((each) => each.message).join('; ') };
  }

  for (const service of services) keep(service);
  for (const service of services) {
    const failure = give(service);
    const order = (address: string) =>
      service.requested.length > 0 ? service.requested.indexOf(address) : service.families.indexOf(familyOf(address));
    const addresses = (given.get(service.key) ?? []).sort((a, b) => order(a) - order(b));
    outcomes.set(service.key, { addresses, ...(failure ?? { reason: 'satisfied', message: '' }) });
  }
  const use = pools.map(({ row, used, conflict }): [string, PoolUse] => [
    row.name,
    { total: rangeSize(row.ranges), used, ...(conflict === undefined ? {} : { conflict }) },
  ]);
  return { services: outcomes, pools: new Map(use) };
}

function whyNotShared(a: AddressRequest, b: AddressRequest): string | undefined {
  if (a.sharing === undefined) return '';
  if (a.sharing.key !== b.sharing?.key) return ', which does not share it under this key';
  const lets = (one: AddressRequest, other: AddressRequest) =>
    one.namespace === other.namespace ||
    one.sharing!.namespaces.some((each) => each === '*' || each === other.namespace);
  if (!lets(a, b) || !lets(b, a)) return ', and the two do not share across their namespaces';
  const port = a.ports.find((each) => b.ports.includes(each));
  if (port !== undefined) return `, which has port ${port}, too`;
  if (a.sharing.traffic !== b.sharing.traffic)
    return ': to share it, both need the external traffic policy Cluster, or Local and the same pods';
  return undefined;
}

function nextFree(pool: PoolState, family: 4 | 6, isFree: (address: string) => boolean): string | undefined {
  const ranges = pool.row.ranges.filter((range) => range.family === family);
  const at = pool.next.get(family) ?? { range: 0, number: ranges[0]?.first ?? 0n };
  pool.next.set(family, at);
  while (at.range < ranges.length) {
    if (at.number > ranges[at.range]!.last) {
      at.range++;
      at.number = ranges[at.range]?.first ?? 0n;
      continue;
    }
    const address = addressText(family, at.number++);
    if (isFree(address)) return address;
  }
  return undefined;
}

function contains(ranges: readonly AddressRange[], address: string): boolean {
  const parsed = parseAddress(address);
  if (!parsed.ok) return false;
  const number = addressNumber(parsed.value);
  return ranges.some(({ family, first, last }) => family === parsed.value.family && first <= number && number <= last);
}

const familyOf = (address: string): 4 | 6 => (address.includes(':') ? 6 : 4);
const names = (pools: readonly PoolState[]) => pools.map((pool) => pool.row.name).join(', ');
