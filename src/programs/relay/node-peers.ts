// The nodes of a cluster as Kubernetes knows them: for a relay that asks no agent.
import { canonicalIp } from '../../core/ip.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type WatchState, watch } from '../../kube/watch.ts';
import { flowServerName } from '../../observe/flows/peer-service.ts';
import type { PeerPool } from '../../observe/relay/peer-pool.ts';
import { joinAddress } from '../../observe/rpc/rpc-address.ts';

interface NodeObject extends KubeObject {
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}

/** Follows the Node objects into the pool; each has its flows on `port` of its first internal address. */
export function followNodes(options: {
  readonly client: KubeClient;
  readonly pool: Pick<PeerPool, 'set' | 'delete' | 'nodes'>;
  readonly port: number;
  readonly tls: boolean;
  readonly onState: (state: WatchState) => void;
}): () => void {
  const { pool, port, tls } = options;
  const upsert = (node: NodeObject): void => {
    const { name } = node.metadata;
    const internal = node.status?.addresses?.find(({ type }) => type === 'InternalIP')?.address;
    const ip = internal === undefined ? undefined : canonicalIp(internal);
    // A node that has no address yet is asked when it has one.
    if (ip === undefined) return;
    pool.set({ name, address: joinAddress(ip, port), serverName: tls ? flowServerName(name) : undefined });
  };
  const following = watch<NodeObject>(
    options.client,
    kubernetesResources.nodes,
    {
      list(nodes) {
        const there = new Set(nodes.map((node) => node.metadata.name));
        for (const { peer } of pool.nodes()) if (!there.has(peer.name)) pool.delete(peer.name);
        for (const node of nodes) upsert(node);
      },
      upsert,
      delete: (node) => pool.delete(node.metadata.name),
    },
    { onState: options.onState },
  );
  return () => following.stop();
}
