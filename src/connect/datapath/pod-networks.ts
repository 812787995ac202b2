// Tells the socket hooks which pod a network namespace is: by its cookie, the host side's ifindex of the pod's veth.
import type { EndpointRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { netnsCookie, withNetns } from '../../kernel/netns.ts';
import { typedMap } from '../../kernel/typed-map.ts';

/** Follows the endpoints from now on; a pod is in the map when its row is in the table. The function ends it. */
export function writePodNetworks(options: {
  readonly endpoints: ReadTable<EndpointRow>;
  /** The map `netns_pods`. */
  readonly map: BpfMap;
  readonly onError: (message: string, error: unknown) => void;
  readonly cookieOf?: (netns: string) => bigint;
}): () => void {
  const { endpoints, onError, cookieOf = (netns) => withNetns(netns, netnsCookie) } = options;
  const map = typedMap(options.map, datapathMaps.netns_pods);
  const written = new Map<number, { cookie: bigint; ifindex: number }>();

  function put(row: EndpointRow): void {
    const before = written.get(row.id);
    // A pod that is being made has no device yet.
    if (row.ifindex === 0 || before?.ifindex === row.ifindex) return;
    try {
      const cookie = before?.cookie ?? cookieOf(row.netns);
      map.update(cookie, row.ifindex);
      written.set(row.id, { cookie, ifindex: row.ifindex });
    } catch (error) {
      onError(`the processes of ${row.namespace}/${row.pod} will not be known`, error);
    }
  }

  function remove(row: EndpointRow): void {
    const before = written.get(row.id);
    if (before === undefined) return;
    written.delete(row.id);
    map.delete(before.cookie);
  }

  for (const row of endpoints.rows()) put(row);
  const wanted = new Set([...written.values()].map((each) => each.cookie));
  for (const { key } of map.entries()) if (!wanted.has(key)) map.delete(key);
  return endpoints.subscribe(({ changes }) => {
    for (const { before, after } of changes) {
      if (after !== undefined) put(after);
      else if (before !== undefined) remove(before);
    }
  });
}
