// The Observer service over all nodes: flows merged by time, states summed, namespaces united.
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import {
  type GetFlowsRequest,
  GetFlowsRequestSchema,
  GetFlowsResponseSchema,
  GetNamespacesResponseSchema,
  GetNodesResponseSchema,
  Observer,
  type ServerStatusResponse,
  ServerStatusResponseSchema,
} from '../../../proto/gen/observer/observer_pb.js';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import { askFor } from '../rpc/rpc-connection.ts';
import { methodPath, type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';
import { type MergeShared, mergeNodes, type patienceMs, type RelayCounts } from './merge-nodes.ts';
import type { NodeLink, PeerPool } from './peer-pool.ts';
import type { RelayAccess } from './relay-access.ts';
import { askAll, nodeNews, nodeTimeoutMs, rangeOf, resumed, uncounted } from './relay-requests.ts';
import { flowShape } from './response-view.ts';

/** What a relay is made of. */
export interface RelayOptions {
  readonly pool: PeerPool;
  readonly access: RelayAccess;
  /** The relay's own name: news of nodes are from it. */
  readonly name: string;
  readonly version: string;
  /** Flows of a node that came after later ones had been handed on. */
  readonly onLate: (node: string, count: number) => void;
  readonly patience?: Partial<typeof patienceMs>;
  /** Bytes that the last of all nodes may take while they are sought, of all calls together. */
  readonly tailBytes: { left: number };
  /** Counts what goes through. */
  readonly counts?: RelayCounts;
}

/** Nodes that are named in a status; the rest is only counted. */
const unavailableShown = 10;

/** The service. */
export function relayService(options: RelayOptions): RpcService {
  const { pool, access } = options;
  const shared: MergeShared = {
    pool,
    tailBytes: options.tailBytes,
    counts: options.counts,
    lostEvents(bytes) {
      const { responseTypes } = fromBinary(GetFlowsResponseSchema, bytes);
      return responseTypes.case === 'lostEvents' ? Number(responseTypes.value.numEventsLost) : 0;
    },
    onLate: options.onLate,
    patience: options.patience,
  };

  const asking =
    <M extends DescMethodUnary>(method: M) =>
    (link: NodeLink): Promise<MessageShape<M['output']>> =>
      askFor(link.connection!, method, nodeTimeoutMs);
  const statusOf = asking(Observer.method.serverStatus);
  const nodesOf = asking(Observer.method.getNodes);
  const namespacesOf = asking(Observer.method.getNamespaces);

  /** Events that are for those who see everything. */
  const eventsOf = <M extends typeof Observer.method.getAgentEvents | typeof Observer.method.getDebugEvents>(
    method: M,
    what: string,
  ) => ({
    async *stream(request: MessageShape<M['input']>, call: RpcCall) {
      const viewer = await access.viewer(call);
      viewer.requireEverything(what);
      yield* mergeNodes(
        shared,
        {
          ...rangeOf(request),
          path: methodPath(method),
          shape: flowShape,
          request: (fromUs) => toBinary<DescMessage>(method.input, resumed(request, fromUs)),
          changes: viewer.follow,
        },
        call.signal,
      );
    },
  });

  return rpcService(Observer, {
    getFlows: {
      async *stream(request: GetFlowsRequest, call: RpcCall) {
        const viewer = await access.viewer(call);
        const { request: asked, show, follow } = viewer.flows(request);
        yield* mergeNodes(
          shared,
          {
            ...rangeOf(request),
            path: methodPath(Observer.method.getFlows),
            shape: flowShape,
            request: (fromUs) =>
              toBinary(GetFlowsRequestSchema, resumed(show === undefined ? asked() : uncounted(asked()), fromUs)),
            show,
            changes: follow,
            status: nodeNews(options.name, viewer.everything, ({ value, ...rest }) =>
              toBinary(
                GetFlowsResponseSchema,
                create(GetFlowsResponseSchema, { responseTypes: { case: 'nodeStatus', value }, ...rest }),
              ),
            ),
          },
          call.signal,
        );
      },
    },
    getAgentEvents: eventsOf(Observer.method.getAgentEvents, 'what agents did'),
    getDebugEvents: eventsOf(Observer.method.getDebugEvents, 'events for debugging'),
    getNodes: {
      async unary(_: unknown, call: RpcCall) {
        const { everything } = await access.viewer(call);
        if (!everything)
          return create(GetNodesResponseSchema, {
            nodes: pool
              .nodes()
              .map(({ peer: { name }, connection }) => ({
                name,
                state: connection === undefined ? NodeState.NODE_UNAVAILABLE : NodeState.NODE_CONNECTED,
              }))
              .sort((a, b) => (a.name < b.name ? -1 : 1)),
          });
        const answers = await askAll(pool, async (link) => ({ link, nodes: (await nodesOf(link)).nodes }));
        const told = new Map(answers.flatMap((each) => (each === undefined ? [] : [[each.link, each.nodes]])));
        const nodes = pool.nodes().flatMap((link) => {
          const { name, address, serverName } = link.peer;
          const seen = {
            name,
            address,
            tls: { enabled: serverName !== undefined, serverName: serverName ?? '' },
          };
          const own = told.get(link)?.[0];
          if (own === undefined)
            return {
              ...seen,
              state: link.connection === undefined ? NodeState.NODE_UNAVAILABLE : NodeState.NODE_ERROR,
            };
          const { version, uptimeNs, numFlows, maxFlows, seenFlows } = own;
          return { ...seen, state: NodeState.NODE_CONNECTED, version, uptimeNs, numFlows, maxFlows, seenFlows };
        });
        return create(GetNodesResponseSchema, { nodes: nodes.sort((a, b) => (a.name < b.name ? -1 : 1)) });
      },
    },
    getNamespaces: {
      async unary(_: unknown, call: RpcCall) {
        const viewer = await access.viewer(call);
        const answers = await askAll(pool, namespacesOf);
        const all = answers.flatMap((each) => each?.namespaces ?? []);
        const united = new Map(all.map((each) => [`${each.cluster}/${each.namespace}`, each]));
        return create(GetNamespacesResponseSchema, {
          namespaces: [...united.keys()]
            .sort()
            .map((key) => united.get(key)!)
            .filter(({ cluster, namespace }) => viewer.namespace(cluster, namespace)),
        });
      },
    },
    serverStatus: {
      async unary(_: unknown, call: RpcCall) {
        const { everything } = await access.viewer(call);
        const links = pool.nodes();
        // How many flows there are is everybody's traffic.
        const answers = everything ? (await askAll(pool, statusOf)).filter((each) => each !== undefined) : [];
        const missing = pool.nodes().filter((link) => link.connection === undefined);
        const sum = (of: (status: ServerStatusResponse) => bigint) => answers.reduce((all, each) => all + of(each), 0n);
        return create(ServerStatusResponseSchema, {
          numFlows: sum((each) => each.numFlows),
          maxFlows: sum((each) => each.maxFlows),
          seenFlows: sum((each) => each.seenFlows),
          // Since then all of them have been seen.
          uptimeNs: answers.map((each) => each.uptimeNs).sort((a, b) => Number(a - b))[0] ?? 0n,
          numConnectedNodes: links.length - missing.length,
          numUnavailableNodes: missing.length,
          unavailableNodes: missing.slice(0, unavailableShown).map((link) => link.peer.name),
          version: options.version,
          flowsRate: answers.reduce((all, each) => all + each.flowsRate, 0),
        });
      },
    },
  });
}
