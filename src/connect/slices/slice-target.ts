// Writes this node's slices to the API. Other nodes' slices are never touched.
import { errorText } from '../../core/errors.ts';
import type { RowFailure, Target } from '../../core/reconciler.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type WeirEndpointSlice, weirResources } from '../../kube/weir/schemas.ts';
import type { SliceRow } from './own-slices.ts';

const nodeLabel = 'weir.dev/node';

/** The target of the slices reconciler of one node. */
export function createSliceTarget(client: KubeClient, node: string): Target<SliceRow> {
  const remove = async (name: string) => {
    try {
      await client.delete(weirResources.endpointSlices, name);
    } catch (error) {
      if (!hasStatus(error, 404)) throw error;
    }
  };
  const each = async (rows: readonly SliceRow[], work: (row: SliceRow) => Promise<unknown>): Promise<RowFailure[]> => {
    const results = await Promise.allSettled(rows.map(work));
    return results.flatMap((result, i) =>
      result.status === 'rejected' ? [{ key: rows[i]!.name, error: errorText(result.reason) }] : [],
    );
  };
  return {
    update: (rows) =>
      each(rows, (row) =>
        client.apply<WeirEndpointSlice>(weirResources.endpointSlices, {
          apiVersion: 'weir.dev/v1alpha1',
          kind: 'WeirEndpointSlice',
          metadata: { name: row.name, labels: { [nodeLabel]: node } },
          node: row.node,
          endpoints: row.endpoints,
        }),
      ),
    delete: (rows) => each(rows, (row) => remove(row.name)),
    async prune(all) {
      const wanted = new Set(all.map((row) => row.name));
      const list = await client.list<WeirEndpointSlice>(weirResources.endpointSlices, {
        query: { labelSelector: `${nodeLabel}=${node}` },
      });
      for (const slice of list.items) if (!wanted.has(slice.metadata.name)) await remove(slice.metadata.name);
    },
  };
}
