// The flow servers of an agent: flows, nodes, health and reflection, on its unix socket and, with a certificate, on the
// network.
import type { NodeRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { healthService } from '../rpc/health-service.ts';
import { reflectionServices } from '../rpc/reflection-service.ts';
import { parseAddress } from '../rpc/rpc-address.ts';
import type { RpcService } from '../rpc/rpc-service.ts';
import { type RpcLimits, type RpcServer, type RpcTls, serveRpc } from '../rpc/serve-rpc.ts';
import { type ObserverSource, observerService } from './observer-service.ts';
import { flowServerName, peerService } from './peer-service.ts';

/** Where flows are served on the network. */
export interface FlowListener {
  /** Such as `[::]:4244`. */
  readonly address: string;
  /** Without it whoever reaches the port reads all flows: only ever by the user's explicit word. */
  readonly tls?: RpcTls;
}

/** The servers, running. */
export interface FlowServer {
  /** The address on the network, with the port; undefined when there is none, or it could not be had. */
  readonly network: string | undefined;
  close(): Promise<void>;
}

/** Listens on the unix socket `address`, such as `unix:/run/weir/hubble.sock`, and on the network when told so. */
export async function serveFlows(options: {
  readonly address: string;
  readonly source: ObserverSource;
  readonly nodes: ReadTable<NodeRow>;
  /** Others that are served beside. */
  readonly services?: readonly RpcService[];
  readonly listener?: FlowListener;
  readonly limits?: Partial<RpcLimits>;
  /** The port of the network cannot be had; the socket is served all the same. */
  readonly onListenError?: (error: unknown) => void;
}): Promise<FlowServer> {
  const { address, nodes, listener, limits } = options;
  const { nodeName } = options.source.context;
  const listening = {
    port: listener === undefined ? undefined : parseAddress(listener.address).port,
    tls: listener?.tls !== undefined,
  };
  let network: RpcServer | undefined;
  const source: ObserverSource = {
    ...options.source,
    address: () => nodes.get(nodeName)?.addresses[0],
    tls: () => (listening.tls && network !== undefined ? { serverName: flowServerName(nodeName) } : undefined),
  };
  const own = [observerService(source), peerService(nodes, nodeName, address, listening), ...(options.services ?? [])];
  const services = [...own, healthService(own), ...reflectionServices(own)];
  const local = await serveRpc({ address, services, limits });
  if (listener !== undefined) {
    network = await serveRpc({ ...listener, services, limits }).catch((error) => {
      options.onListenError?.(error);
      return undefined;
    });
  }
  return {
    get network() {
      return network?.address;
    },
    async close() {
      await Promise.all([local.close(), network?.close()]);
    },
  };
}
