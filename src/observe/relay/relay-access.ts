// Where a check of who may see what stands: between a client's request and the requests to the nodes, and on each
// response. What is decided there is in src/observe/access.
import type { GetFlowsRequest } from '../../../proto/gen/observer/observer_pb.js';
import type { GetProcessEventsRequest, Process } from '../../../proto/gen/process/process_pb.js';
import type { RpcCall } from '../rpc/rpc-service.ts';
import type { RpcError } from '../rpc/rpc-status.ts';

/** Told while a stream runs. */
export interface GrantListener {
  /** Something else is to be asked of the nodes from now on. */
  changed(): void;
  /** Nothing may be seen any more. */
  ended(error: RpcError): void;
}

/** What a client is granted of a request. */
export interface Grant<Request> {
  /** What is asked of the nodes: the client's request, or a narrower one. */
  request(): Request;
  /** What the client gets for the response at `bytes[start..end)`; undefined: nothing. Without it all is as it is. */
  readonly show?: (bytes: Uint8Array, start: number, end: number) => Uint8Array | undefined;
  /** Tells of changes until the answer is called. */
  readonly follow?: (listener: GrantListener) => () => void;
}

/** What a client is granted of a request for what processes did. */
export interface ProcessGrant extends Grant<GetProcessEventsRequest> {
  /** Of what runs: what the client gets; undefined: nothing. Without it all is as it is. */
  readonly showProcess?: (process: Process) => Process | undefined;
}

/** A client whose name is known. */
export interface RelayViewer {
  /** It may see all namespaces, and how much goes on in them. */
  readonly everything: boolean;
  flows(request: GetFlowsRequest): Grant<GetFlowsRequest>;
  /** Refused to who may see no processes. */
  processes(request: GetProcessEventsRequest): ProcessGrant;
  namespace(cluster: string, namespace: string): boolean;
  /** Refuses `what`, which speaks of all namespaces, to who may not see them. */
  requireEverything(what: string): void;
  /** Tells when the client may see nothing any more, or less than everything. */
  readonly follow?: Grant<unknown>['follow'];
}

/** Decides for each call. Refusals are thrown as RpcError. */
export interface RelayAccess {
  viewer(call: RpcCall): Promise<RelayViewer>;
}

/** A viewer who sees everything. */
export function everythingViewer(follow?: Grant<unknown>['follow']): RelayViewer {
  return {
    everything: true,
    flows: (request) => ({ request: () => request, follow }),
    processes: (request) => ({ request: () => request, follow }),
    namespace: () => true,
    requireEverything: () => {},
    follow,
  };
}

/** Everybody sees everything. */
export const openAccess: RelayAccess = { viewer: async () => everythingViewer() };
