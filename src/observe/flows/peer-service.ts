// The Peer service: which nodes there are, for a gatherer of all nodes' flows.
import { create } from '@bufbuild/protobuf';
import type * as grpc from '@grpc/grpc-js';
import {
  type ChangeNotification,
  ChangeNotificationSchema,
  ChangeNotificationType,
} from '../../../proto/gen/peer/peer_pb.js';
import type { NodeRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { streaming } from './grpc-service.ts';

/** The handlers over the table of nodes. `ownAddress` is where this node's own flows are. */
export function peerHandlers(
  nodes: ReadTable<NodeRow>,
  nodeName: string,
  ownAddress: string,
): grpc.UntypedServiceImplementation {
  return {
    notify: streaming(async function* (_: unknown, signal: AbortSignal): AsyncGenerator<ChangeNotification> {
      for await (const { changes } of nodes.changes({ signal })) {
        for (const { before, after } of changes) {
          const row = (after ?? before)!;
          const type =
            after === undefined
              ? ChangeNotificationType.PEER_DELETED
              : before === undefined
                ? ChangeNotificationType.PEER_ADDED
                : ChangeNotificationType.PEER_UPDATED;
          yield create(ChangeNotificationSchema, {
            name: row.name,
            address: row.name === nodeName ? ownAddress : (row.addresses[0] ?? ''),
            type,
          });
        }
      }
    }),
  };
}
