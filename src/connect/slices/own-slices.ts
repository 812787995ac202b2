// This node's pods as objects of the API, cut into slices of a bounded size: a change rewrites one small object.
import { reservedIdentities } from '../../core/identity.ts';
import type { EndpointRow } from '../../core/rows.ts';
import type { ReadTable, Table } from '../../core/table.ts';
import type { WeirEndpointSlice } from '../../kube/weir/schemas.ts';

/** A slice as it is to be. The primary key is `name`. */
export interface SliceRow {
  readonly name: string;
  readonly node: string;
  readonly endpoints: WeirEndpointSlice['endpoints'];
}

/** Endpoints per slice: small enough to rewrite on every change, large enough that slices stay few. */
export const sliceSize = 32;

/** Keeps `to` equal to the endpoints. An endpoint stays in the slice it was put in. */
export function createSliceDerivation(
  endpoints: ReadTable<EndpointRow>,
  to: Table<SliceRow>,
  node: string,
): { run(): void } {
  const sliceOf = new Map<number, number>();
  const members: Map<number, WeirEndpointSlice['endpoints'][number]>[] = [];
  let seen = 0;

  function place(id: number): number {
    const before = sliceOf.get(id);
    if (before !== undefined) return before;
    let slice = members.findIndex((each) => each.size < sliceSize);
    if (slice < 0) slice = members.push(new Map()) - 1;
    sliceOf.set(id, slice);
    return slice;
  }

  return {
    run() {
      const set = endpoints.changesSince(seen);
      seen = set.revision;
      const touched = new Set<number>();
      if (set.resync) {
        for (const [slice, each] of members.entries()) {
          each.clear();
          touched.add(slice);
        }
        sliceOf.clear();
      }
      for (const change of set.changes) {
        const id = Number(change.key);
        const entry = change.after && publish(change.after);
        if (entry !== undefined) {
          const slice = place(id);
          members[slice]!.set(id, entry);
          touched.add(slice);
        } else if (sliceOf.has(id)) {
          const slice = sliceOf.get(id)!;
          members[slice]!.delete(id);
          sliceOf.delete(id);
          touched.add(slice);
        }
      }
      to.batch(() => {
        for (const slice of touched) {
          const name = `${node}-${slice}`;
          if (members[slice]!.size === 0) to.delete(name);
          else to.upsert({ name, node, endpoints: [...members[slice]!.values()].sort((a, b) => a.id - b.id) });
        }
      });
      if (endpoints.initialized) to.markInitialized();
    },
  };
}

/** What others are told; nothing of a pod that has no identity yet. */
function publish(row: EndpointRow): WeirEndpointSlice['endpoints'][number] | undefined {
  if (row.identity === reservedIdentities.init) return undefined;
  return {
    id: row.id,
    namespace: row.namespace,
    pod: row.pod,
    ...(row.ipv4 === undefined ? {} : { ipv4: row.ipv4 }),
    ...(row.ipv6 === undefined ? {} : { ipv6: row.ipv6 }),
    identity: row.identity,
    ...(row.namedPorts.length === 0 ? {} : { ports: row.namedPorts.map((port) => ({ ...port })) }),
    ...(row.workload === undefined ? {} : { workload: row.workload }),
  };
}
