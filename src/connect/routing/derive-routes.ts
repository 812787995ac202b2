// The routes of direct routing: to each other node's pod blocks by that node's address, and to this node's own block
// over the pair of devices where the datapath judges what the node itself sends.
import type { NodeRow } from '../../core/rows.ts';

/** A route as it is to be. The primary key is `dst`. */
export interface RouteRow {
  readonly dst: string;
  readonly via: string;
  /** Over weir_host, rather than where the kernel finds `via`. */
  readonly local: boolean;
  /** The source address that the node itself uses. */
  readonly src?: string;
  readonly node: string;
}

const sameFamily = (a: string, b: string) => a.includes(':') === b.includes(':');

/** The routes that a node needs, given all nodes. A node without an address of a block's family gets no route to it. */
export function routesFor(
  thisNode: string,
  nodes: Iterable<NodeRow>,
  gateways: { ipv4: string; ipv6: string },
): RouteRow[] {
  const routes: RouteRow[] = [];
  for (const node of nodes) {
    for (const dst of node.podCidrs) {
      const address = node.addresses.find((each) => sameFamily(each, dst));
      if (node.name === thisNode) {
        routes.push({
          dst,
          via: dst.includes(':') ? gateways.ipv6 : gateways.ipv4,
          local: true,
          src: address,
          node: node.name,
        });
      } else if (address !== undefined) routes.push({ dst, via: address, local: false, node: node.name });
    }
  }
  return routes;
}
