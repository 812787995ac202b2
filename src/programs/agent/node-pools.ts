// The pools of pod addresses that belong to this node's blocks, kept in step with the WeirNode object and on disk.
import { containerKey } from '../../connect/endpoints/endpoint-manager.ts';
import { type AddressPool, createAddressPool, type Lease } from '../../connect/ipam/address-pool.ts';
import type { EndpointRow, NodeRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { Log } from '../log.ts';
import type { StateFile } from './node-state.ts';

/** The pools of one node. */
export interface NodePools {
  pools(): readonly AddressPool[];
  /** Addresses that no endpoint has although they are taken: a leak, or a bug. */
  leaks(): Lease[];
  save(): void;
}

/** What is kept on disk: addresses that rest. */
export type RestingLeases = readonly Lease[];

/** Checks what is read from disk. */
export function checkLeases(value: unknown): RestingLeases {
  if (!Array.isArray(value)) throw new Error('not a list');
  for (const lease of value) {
    if (typeof lease?.address !== 'string' || typeof lease?.owner !== 'string' || typeof lease?.freedAtMs !== 'number')
      throw new Error('an entry is not a lease');
  }
  return value;
}

/** Follows `nodes` for the blocks of `thisNode`; endpoints that exist keep their addresses, and so must be known. */
export function createNodePools(options: {
  readonly thisNode: string;
  readonly nodes: ReadTable<NodeRow>;
  readonly endpoints: ReadTable<EndpointRow>;
  readonly file: StateFile<RestingLeases>;
  readonly log: Log;
}): NodePools {
  const { thisNode, nodes, endpoints, file, log } = options;
  if (!endpoints.initialized) throw new Error('the pools of a node need to know its endpoints');
  let pools: AddressPool[] = [];
  const resting = file.load() ?? [];

  function update(): void {
    const cidrs = nodes.get(thisNode)?.podCidrs ?? [];
    pools = cidrs.map((cidr) => pools.find((pool) => pool.cidr === cidr) ?? create(cidr));
  }

  function create(cidr: string): AddressPool {
    const pool = createAddressPool(cidr, { nowMs: Date.now });
    for (const lease of resting) pool.rest(lease);
    for (const row of endpoints.rows()) {
      const address = cidr.includes(':') ? row.ipv6 : row.ipv4;
      if (address !== undefined && !pool.reserve(address, containerKey(row.containerId, row.interfaceName)))
        log.warn('a pod has an address that is not of this block', {
          pod: `${row.namespace}/${row.pod}`,
          address,
          cidr,
        });
    }
    log.info('pod addresses come from', { ...pool.usage() });
    return pool;
  }

  nodes.subscribe(update);
  update();
  return {
    pools: () => pools,
    leaks() {
      const owners = new Set([...endpoints.rows()].map((row) => containerKey(row.containerId, row.interfaceName)));
      return pools.flatMap((pool) =>
        pool.leases().filter((lease) => lease.freedAtMs === undefined && !owners.has(lease.owner)),
      );
    },
    save: () => file.save(pools.flatMap((pool) => pool.leases().filter((lease) => lease.freedAtMs !== undefined))),
  };
}
