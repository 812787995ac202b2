// Who has which address of the cluster: local pods, pods of other nodes, nodes, the API server. Later sources win where
// two claim one address: a local pod over a slice that is out of date, a node's own address over all.
import { reservedIdentities } from '../../core/identity.ts';
import type { AddressRow, EndpointRow, NodeRow, RemoteEndpointRow } from '../../core/rows.ts';
import type { Key, ReadTable, Table } from '../../core/table.ts';
import { natAddress } from '../ipam/nat-address.ts';

/** The tables that addresses come from. */
export interface AddressSources {
  readonly endpoints: ReadTable<EndpointRow>;
  readonly remoteEndpoints: ReadTable<RemoteEndpointRow>;
  readonly nodes: ReadTable<NodeRow>;
  /** Addresses of this node's own devices. */
  readonly hostAddresses: ReadTable<{ address: string }>;
  /** Where the API server answers. */
  readonly apiServers: ReadTable<{ address: string }>;
}

/** In rising precedence. */
const sourceNames = ['apiServers', 'remoteEndpoints', 'nodes', 'endpoints', 'hostAddresses'] as const;
type SourceName = (typeof sourceNames)[number];
const byNumber = new Intl.Collator('en', { numeric: true });

function rowsOf(source: SourceName, row: unknown, thisNode: string): AddressRow[] {
  const plain = { namedPorts: [], ifindex: 0, endpointId: 0 } as const;
  switch (source) {
    case 'apiServers':
      return [
        {
          ...plain,
          address: (row as { address: string }).address,
          identity: reservedIdentities['kube-apiserver'],
          kind: 'kube-apiserver',
        },
      ];
    case 'hostAddresses':
      return [
        {
          ...plain,
          address: (row as { address: string }).address,
          identity: reservedIdentities.host,
          kind: 'host',
          node: thisNode,
        },
      ];
    case 'nodes': {
      const node = row as NodeRow;
      const own = node.name === thisNode;
      const nodeRows = node.addresses.map((address) => ({
        ...plain,
        address,
        identity: own ? reservedIdentities.host : reservedIdentities['remote-node'],
        kind: own ? ('host' as const) : ('remote-node' as const),
        node: node.name,
      }));
      // Who is behind such an address is somebody outside, whom the node speaks for.
      const natRows = node.podCidrs.flatMap((cidr) => {
        const address = natAddress(cidr);
        if (address === undefined) return [];
        const identity = reservedIdentities[address.includes(':') ? 'world-ipv6' : 'world-ipv4'];
        return [{ ...plain, address, identity, kind: 'nat' as const, node: node.name, ...(own ? { here: true } : {}) }];
      });
      return [...nodeRows, ...natRows];
    }
    case 'endpoints': {
      const endpoint = row as EndpointRow;
      const pending = endpoint.identity === reservedIdentities.init && endpoint.namespace !== '';
      return [endpoint.ipv4, endpoint.ipv6].flatMap((address) =>
        address === undefined
          ? []
          : {
              address,
              identity: endpoint.identity,
              kind: 'pod' as const,
              namespace: endpoint.namespace,
              pod: endpoint.pod,
              node: thisNode,
              namedPorts: endpoint.namedPorts,
              ...(endpoint.workload === undefined ? {} : { workload: endpoint.workload }),
              ifindex: endpoint.ifindex,
              endpointId: endpoint.id,
              ...(pending ? { pending } : {}),
            },
      );
    }
    case 'remoteEndpoints': {
      const endpoint = row as RemoteEndpointRow;
      if (endpoint.node === thisNode) return [];
      return [endpoint.ipv4, endpoint.ipv6].flatMap((address) =>
        address === undefined
          ? []
          : {
              ...plain,
              address,
              identity: endpoint.identity,
              kind: 'pod' as const,
              namespace: endpoint.namespace,
              pod: endpoint.pod,
              node: endpoint.node,
              namedPorts: endpoint.namedPorts,
              ...(endpoint.workload === undefined ? {} : { workload: endpoint.workload }),
            },
      );
    }
  }
}

/**
 * Keeps `to` equal to what the sources say, address by address; cost follows the change. Runs at once when `run` is
 * called; the caller decides when.
 */
export function createAddressDerivation(
  sources: AddressSources,
  to: Table<AddressRow>,
  thisNode: string,
): { run(): void } {
  /** address → what each source says of it */
  const claims = new Map<string, Map<string, AddressRow>>();
  const contributions = new Map<string, readonly string[]>();
  const seen = new Map<SourceName, number>();

  function claim(source: SourceName, key: Key, rows: readonly AddressRow[], touched: Set<string>): void {
    const id = `${source}\n${key}`;
    for (const address of contributions.get(id) ?? []) {
      const of = claims.get(address);
      of?.delete(id);
      if (of?.size === 0) claims.delete(address);
      touched.add(address);
    }
    contributions.delete(id);
    if (rows.length === 0) return;
    contributions.set(
      id,
      rows.map((row) => row.address),
    );
    for (const row of rows) {
      const of = claims.get(row.address) ?? new Map<string, AddressRow>();
      of.set(id, row);
      claims.set(row.address, of);
      touched.add(row.address);
    }
  }

  function winner(address: string): AddressRow | undefined {
    let best: AddressRow | undefined;
    let bestId = '';
    let rank = -1;
    let claimedByApiServer = false;
    for (const [id, row] of claims.get(address) ?? []) {
      const own = sourceNames.indexOf(id.slice(0, id.indexOf('\n')) as SourceName);
      claimedByApiServer ||= row.kind === 'kube-apiserver';
      // Two of one source: the higher number, since numbers count up, and whatever the order in which we heard of them.
      if (own < rank || (own === rank && byNumber.compare(id, bestId) < 0)) continue;
      [best, bestId, rank] = [row, id, own];
    }
    if (best !== undefined && best.kind !== 'kube-apiserver' && best.kind !== 'pod' && claimedByApiServer) {
      return { ...best, apiServer: true };
    }
    return best;
  }

  return {
    run() {
      const touched = new Set<string>();
      for (const name of sourceNames) {
        const table = sources[name] as ReadTable<unknown>;
        const since = seen.get(name) ?? 0;
        if (table.revision === since) continue;
        const set = table.changesSince(since);
        seen.set(name, set.revision);
        if (set.resync) {
          for (const id of [...contributions.keys()])
            if (id.startsWith(`${name}\n`)) claim(name, id.slice(name.length + 1), [], touched);
        }
        for (const change of set.changes)
          claim(name, change.key, change.after === undefined ? [] : rowsOf(name, change.after, thisNode), touched);
      }
      to.batch(() => {
        for (const address of touched) {
          const row = winner(address);
          if (row === undefined) to.delete(address);
          else to.upsert(row);
        }
      });
      if (sourceNames.every((name) => sources[name].initialized)) to.markInitialized();
    },
  };
}
