// The Peer service: which nodes there are and where their flows are to be had, for a gatherer of all of them.
import { create } from '@bufbuild/protobuf';
import {
  type ChangeNotification,
  ChangeNotificationSchema,
  ChangeNotificationType,
  Peer,
} from '../../../proto/gen/peer/peer_pb.js';
import type { NodeRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { joinAddress } from '../rpc/rpc-address.ts';
import { type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';

/** How nodes listen: all alike. */
export interface PeerListening {
  /** The port on the nodes' addresses; undefined when they do not listen on the network. */
  readonly port?: number;
  /** Whether they speak TLS there. */
  readonly tls: boolean;
}

/** The name in a node's certificate: dots of its name would be levels of the domain. */
export function flowServerName(node: string, cluster = 'default'): string {
  return `${node.replaceAll('.', '-')}.${cluster}.flows.weir.dev`;
}

/** A name in the certificates of all agents, for who asks whichever of them answers. */
export const anyAgentName = 'agents.flows.weir.dev';

/** The name in the relay's certificate that clients may expect wherever they reach it. */
export const relayName = 'relay.flows.weir.dev';

/** The service over the table of nodes. `ownAddress` is where this node's own flows are when it does not listen on the network. */
export function peerService(
  nodes: ReadTable<NodeRow>,
  nodeName: string,
  ownAddress: string,
  listening: PeerListening,
): RpcService {
  const { port, tls } = listening;
  const addressOf = (row: NodeRow) => {
    if (row.name === nodeName && port === undefined) return ownAddress;
    const [first = ''] = row.addresses;
    return port === undefined || first === '' ? first : joinAddress(first, port);
  };
  return rpcService(Peer, {
    notify: {
      async *stream(_: unknown, { signal }: RpcCall): AsyncGenerator<ChangeNotification> {
        for await (const { changes } of nodes.changes({ signal })) {
          for (const { before, after } of changes) {
            const row = (after ?? before)!;
            // Much of a node changes that is nothing to who reads its flows.
            if (before !== undefined && after !== undefined && addressOf(before) === addressOf(after)) continue;
            const type =
              after === undefined
                ? ChangeNotificationType.PEER_DELETED
                : before === undefined
                  ? ChangeNotificationType.PEER_ADDED
                  : ChangeNotificationType.PEER_UPDATED;
            yield create(ChangeNotificationSchema, {
              name: row.name,
              address: addressOf(row),
              type,
              tls: tls && port !== undefined ? { serverName: flowServerName(row.name) } : undefined,
            });
          }
        }
      },
    },
  });
}
