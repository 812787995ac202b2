// Where a check of who may see what stands: between a client's request and the requests to the nodes, and on each
// response. Today everybody who may connect sees everything.
import type { GetFlowsRequest } from '../../../proto/gen/observer/observer_pb.js';
import type { RpcPeer } from '../rpc/rpc-service.ts';

/** What a client is granted of a request for flows. */
export interface FlowGrant {
  /** What is asked of the nodes: the client's request, or a narrower one. */
  readonly request: GetFlowsRequest;
  /** Whether the response at `bytes[start..end)`, a GetFlowsResponse, may go to the client; without it all may. */
  readonly admits?: (bytes: Uint8Array, start: number, end: number) => boolean;
}

/** Decides for each client. Refusals are thrown as RpcError. */
export interface RelayAccess {
  flows(request: GetFlowsRequest, peer: RpcPeer): FlowGrant;
  /** Whether the client may see what the agents did, which speaks of all namespaces. */
  agentEvents(peer: RpcPeer): boolean;
  namespace(cluster: string, namespace: string, peer: RpcPeer): boolean;
}

/** Everybody sees everything. */
export const openAccess: RelayAccess = {
  flows: (request) => ({ request }),
  agentEvents: () => true,
  namespace: () => true,
};
