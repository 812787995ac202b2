// The nodes of a cluster as one agent tells of them: its Peer service, followed for ever. While the agent is away the
// nodes that are known stay; when it is back it tells all of them again, and who is not among them is gone.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  ChangeNotificationSchema,
  ChangeNotificationType,
  NotifyRequestSchema,
  Peer,
} from '../../../proto/gen/peer/peer_pb.js';
import { errorText } from '../../core/errors.ts';
import { connectRpc, type RpcTarget } from '../rpc/rpc-connection.ts';
import { methodPath } from '../rpc/rpc-service.ts';
import type { PeerPool } from './peer-pool.ts';

const retryMs = { first: 500, most: 15_000 } as const;
/** The agent tells all nodes that there are at once; so long after the first it has. */
const defaultListedMs = 3_000;

/** Follows the agent at `target` into the pool. `onProblem` is told when it cannot be asked, once for each time. */
export function followPeers(
  target: () => RpcTarget,
  pool: Pick<PeerPool, 'set' | 'delete' | 'nodes'>,
  onProblem: (reason: string) => void,
  listedMs = defaultListedMs,
): () => void {
  const stop = new AbortController();
  let wake = () => {};

  async function once(onTold: () => void): Promise<string> {
    const connection = await connectRpc(target());
    if (stop.signal.aborted) {
      connection.close();
      return '';
    }
    stop.signal.addEventListener('abort', connection.close, { once: true });
    const told = new Set<string>();
    let listed: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve) => {
        connection.stream(methodPath(Peer.method.notify), toBinary(NotifyRequestSchema, create(NotifyRequestSchema)), {
          messages(bytes, starts, ends) {
            onTold();
            for (const [i, start] of starts.entries()) take(bytes.subarray(start, ends[i]), told);
            // An agent that began a moment ago may have nothing to tell yet: that deletes nobody.
            listed ??= setTimeout(() => {
              for (const { peer } of pool.nodes()) if (!told.has(peer.name)) pool.delete(peer.name);
            }, listedMs);
          },
          end: (error) => resolve(error?.message ?? 'it ended the stream'),
        });
      });
    } finally {
      clearTimeout(listed);
      stop.signal.removeEventListener('abort', connection.close);
      connection.close();
    }
  }

  function take(bytes: Uint8Array, told: Set<string>): void {
    const { name, address, type, tls } = fromBinary(ChangeNotificationSchema, bytes);
    if (type === ChangeNotificationType.PEER_DELETED) {
      told.delete(name);
      pool.delete(name);
      return;
    }
    told.add(name);
    pool.set({ name, address, serverName: tls?.serverName || undefined });
  }

  void (async () => {
    let waitMs = 0;
    while (!stop.signal.aborted) {
      const reason = await once(() => {
        waitMs = 0;
      }).catch(errorText);
      if (stop.signal.aborted) return;
      onProblem(reason);
      waitMs = Math.min(retryMs.most, Math.max(retryMs.first, waitMs * 2));
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  })();
  return () => {
    stop.abort();
    wake();
  };
}
