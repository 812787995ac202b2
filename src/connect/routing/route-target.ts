// Writes routes into the node's main table, marked with Weir's protocol number, so that prune finds its own and no
// others. Other nodes' addresses must be on a shared link: where they are not, the network itself has to know the way.

import { errorText } from '../../core/errors.ts';
import type { RowFailure, Target } from '../../core/reconciler.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import {
  deleteRoute,
  listRoutes,
  lookupRoute,
  RouteProtocol,
  type RouteSpec,
  replaceRoute,
} from '../../kernel/routes.ts';
import type { RouteRow } from './derive-routes.ts';

/** The target of the routes reconciler. `hostIfindex` is weir_host's. */
export function createRouteTarget(netlink: Netlink, hostIfindex: () => number): Target<RouteRow> {
  function specOf(row: RouteRow): RouteSpec | undefined {
    if (row.local)
      return {
        dst: row.dst,
        via: row.via,
        ifindex: hostIfindex(),
        onlink: true,
        src: row.src,
        protocol: RouteProtocol.weir,
      };
    const way = lookupRoute(netlink, row.via);
    if (way === undefined || way.via !== undefined) return undefined; // Behind a router: that one has to know the pods' blocks.
    return { dst: row.dst, via: row.via, ifindex: way.ifindex, protocol: RouteProtocol.weir };
  }
  return {
    update(rows) {
      const failures: RowFailure[] = [];
      for (const row of rows) {
        try {
          const spec = specOf(row);
          if (spec !== undefined) replaceRoute(netlink, spec);
        } catch (error) {
          failures.push({ key: row.dst, error: errorText(error) });
        }
      }
      return failures;
    },
    delete(rows) {
      for (const row of rows) deleteRoute(netlink, { dst: row.dst, protocol: RouteProtocol.weir });
    },
    prune(all) {
      const wanted = new Set(all.map((row) => row.dst));
      for (const route of listRoutes(netlink, { protocol: RouteProtocol.weir })) {
        if (!wanted.has(route.dst)) deleteRoute(netlink, { dst: route.dst, protocol: RouteProtocol.weir });
      }
    },
  };
}
