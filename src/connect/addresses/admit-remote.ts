// Pods that other nodes tell of count only with addresses of the block of the node that tells: whoever may write slices for
// one node cannot take the address of another node's pod, of a node, or of the world. What does not fit is kept aside.
import { type Cidr, cidrContains, parseAddress, parseCidr } from '../../core/ip.ts';
import type { NodeRow, RemoteEndpointRow } from '../../core/rows.ts';
import type { ReadTable, Table } from '../../core/table.ts';

/** Writes into a table what fits, and follows the nodes' blocks: what was refused may fit later, and the other way round. */
export interface RemoteAdmission {
  upsert(rows: readonly RemoteEndpointRow[]): void;
  delete(key: string): void;
  replaceAll(rows: readonly RemoteEndpointRow[]): void;
  /** What is ignored now, by key. */
  readonly refused: ReadonlyMap<string, RemoteEndpointRow>;
}

/** Admits rows into `to` by the blocks in `nodes`. */
export function admitRemote(nodes: ReadTable<NodeRow>, to: Table<RemoteEndpointRow>): RemoteAdmission {
  const refused = new Map<string, RemoteEndpointRow>();
  const blocks = new Map<string, { of: readonly string[]; parsed: Cidr[] }>();

  function blocksOf(node: string): Cidr[] {
    const of = nodes.get(node)?.podCidrs ?? [];
    const known = blocks.get(node);
    if (known?.of === of) return known.parsed;
    const parsed = of.flatMap((cidr) => {
      const result = parseCidr(cidr);
      return result.ok ? result.value : [];
    });
    blocks.set(node, { of, parsed });
    return parsed;
  }

  function fits(row: RemoteEndpointRow): boolean {
    return [row.ipv4, row.ipv6].every((text) => {
      if (text === undefined) return true;
      const address = parseAddress(text);
      return address.ok && blocksOf(row.node).some((block) => cidrContains(block, address.value));
    });
  }

  function sort(rows: Iterable<RemoteEndpointRow>): { fit: RemoteEndpointRow[]; strange: RemoteEndpointRow[] } {
    const fit: RemoteEndpointRow[] = [];
    const strange: RemoteEndpointRow[] = [];
    for (const row of rows) (fits(row) ? fit : strange).push(row);
    return { fit, strange };
  }

  function upsert(rows: Iterable<RemoteEndpointRow>): void {
    const { fit, strange } = sort(rows);
    for (const row of fit) refused.delete(row.key);
    for (const row of strange) refused.set(row.key, row);
    to.batch(() => {
      to.delete(strange.map((row) => row.key));
      to.upsert(fit);
    });
  }

  nodes.subscribe((set) => {
    const changed = new Set<string>();
    let had = set.resync;
    for (const { before, after, key } of set.changes) {
      if (before?.podCidrs.join() === after?.podCidrs.join()) continue;
      changed.add(String(key));
      if (before !== undefined) had = true;
      if (after === undefined) blocks.delete(String(key));
    }
    if (changed.size === 0 && !set.resync) return;
    const concerned = (row: RemoteEndpointRow) => set.resync || changed.has(row.node);
    const again = [...refused.values()].filter(concerned);
    // Only a node that had blocks before can have rows that were admitted by them.
    if (had) for (const row of to.rows()) if (concerned(row)) again.push(row);
    if (again.length > 0) upsert(again);
  });

  return {
    upsert,
    delete(key) {
      refused.delete(key);
      to.delete(key);
    },
    replaceAll(rows) {
      const { fit, strange } = sort(rows);
      refused.clear();
      for (const row of strange) refused.set(row.key, row);
      to.replaceAll(fit);
    },
    refused,
  };
}
