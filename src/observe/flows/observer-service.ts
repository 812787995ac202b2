// The Observer service over this agent's flows.
import { create } from '@bufbuild/protobuf';
import { type Timestamp, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import {
  type GetAgentEventsRequest,
  type GetAgentEventsResponse,
  GetAgentEventsResponseSchema,
  type GetDebugEventsRequest,
  type GetFlowsRequest,
  GetNamespacesResponseSchema,
  GetNodesResponseSchema,
  Observer,
  type ServerStatusResponse,
  ServerStatusResponseSchema,
} from '../../../proto/gen/observer/observer_pb.js';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import { type FramedMessages, type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import type { AgentEvents } from './agent-events.ts';
import { CelTooDear } from './cel-filter.ts';
import { compileFieldMask, type FieldMask } from './field-mask.ts';
import { clusterName, FilterError } from './filter-values.ts';
import { compileFilters, type FlowMatch } from './flow-filter.ts';
import type { FlowContext } from './flow-message.ts';
import type { FlowRing } from './flow-ring.ts';
import type { LossLog } from './loss-log.ts';
import { readFlows } from './read-flows.ts';
import { compileRequestExtensions } from './request-extensions.ts';
import { createResponseBatch } from './response-batch.ts';

/** What the service hands out. */
export interface ObserverSource {
  readonly ring: FlowRing;
  readonly losses: LossLog;
  readonly agentEvents: AgentEvents;
  readonly context: FlowContext;
  readonly startedAtMs: number;
  /** Flows a second, of the last minute. */
  readonly flowsRate: () => number;
  /** Where other nodes reach this one's flows; undefined while it does not listen on the network. */
  readonly address?: () => string | undefined;
  readonly tls?: () => { readonly serverName: string } | undefined;
}

/** The service over a node's flows. */
export function observerService(source: ObserverSource): RpcService {
  const { ring, context } = source;
  return rpcService(Observer, {
    getFlows: { stream: (request: GetFlowsRequest, { signal }: RpcCall) => getFlows(source, request, signal) },
    getAgentEvents: {
      stream: (request: GetAgentEventsRequest, { signal }: RpcCall) => getAgentEvents(source, request, signal),
    },
    // The datapath has none: whoever follows them waits, whoever asks for those there are is done at once.
    getDebugEvents: {
      async *stream({ follow }: GetDebugEventsRequest, { signal }: RpcCall) {
        if (follow && !signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
    },
    getNodes: {
      unary() {
        const status = serverStatus(source);
        const tls = source.tls?.();
        return create(GetNodesResponseSchema, {
          nodes: [
            {
              name: context.nodeName,
              version: context.version,
              address: source.address?.(),
              state: NodeState.NODE_CONNECTED,
              tls: tls === undefined ? { enabled: false } : { enabled: true, serverName: tls.serverName },
              uptimeNs: status.uptimeNs,
              numFlows: status.numFlows,
              maxFlows: status.maxFlows,
              seenFlows: status.seenFlows,
            },
          ],
        });
      },
    },
    getNamespaces: {
      unary: () =>
        create(GetNamespacesResponseSchema, {
          namespaces: ring.namespaces().map((namespace) => ({ cluster: clusterName, namespace })),
        }),
    },
    serverStatus: { unary: () => serverStatus(source) },
  });

  function serverStatus({ flowsRate, startedAtMs }: ObserverSource): ServerStatusResponse {
    return create(ServerStatusResponseSchema, {
      numFlows: BigInt(ring.next - ring.oldest),
      maxFlows: BigInt(ring.capacity),
      seenFlows: BigInt(ring.next),
      uptimeNs: BigInt(Date.now() - startedAtMs) * 1_000_000n,
      numConnectedNodes: 1,
      numUnavailableNodes: 0,
      version: context.version,
      flowsRate: flowsRate(),
    });
  }
}

function getFlows(
  { ring, losses, context }: ObserverSource,
  request: GetFlowsRequest,
  signal: AbortSignal,
): AsyncIterable<FramedMessages> {
  const query = { ...rangeOf(request), match: matchOf(request, context) };
  const batch = createResponseBatch(context, maskOf(request));
  return dearAsStatus(readFlows(ring, losses, query, batch, signal));
}

/** An expression that turns out to be too dear ends the stream, and says so. */
async function* dearAsStatus<T>(items: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (error) {
    if (error instanceof CelTooDear) throw new RpcError(RpcCode.resourceExhausted, error.message);
    throw error;
  }
}

function matchOf(request: GetFlowsRequest, context: FlowContext): FlowMatch {
  try {
    const filters = compileFilters(request.whitelist, request.blacklist, context);
    if (request.extensions === undefined) return filters;
    const more = compileRequestExtensions(request.extensions);
    return (row) => more(row) && filters(row);
  } catch (error) {
    if (error instanceof FilterError) throw new RpcError(RpcCode.invalidArgument, error.message);
    throw error;
  }
}

function maskOf(request: GetFlowsRequest): FieldMask | undefined {
  const paths = request.fieldMask?.paths ?? [];
  if (paths.length === 0) return undefined;
  if (paths.length > 1024) throw new RpcError(RpcCode.invalidArgument, 'field_mask: more than 1024 paths');
  const mask = compileFieldMask(FlowSchema, paths);
  if ('unknown' in mask)
    throw new RpcError(
      RpcCode.invalidArgument,
      `field_mask: a flow has no field ${JSON.stringify(mask.unknown.slice(0, 100))}`,
    );
  return mask;
}

interface Range {
  readonly number: number;
  readonly first: boolean;
  readonly follow: boolean;
  readonly sinceUs?: number;
  readonly untilUs?: number;
}

function rangeOf(request: {
  number: bigint;
  first: boolean;
  follow: boolean;
  since?: Timestamp;
  until?: Timestamp;
}): Range {
  const us = (time: Timestamp | undefined) =>
    time === undefined ? undefined : Number(time.seconds) * 1e6 + Math.floor(time.nanos / 1000);
  return {
    number: Number(request.number > BigInt(Number.MAX_SAFE_INTEGER) ? 0n : request.number),
    first: request.first,
    follow: request.follow,
    sinceUs: us(request.since),
    untilUs: us(request.until),
  };
}

async function* getAgentEvents(
  { agentEvents, context }: ObserverSource,
  request: GetAgentEventsRequest,
  signal: AbortSignal,
): AsyncGenerator<GetAgentEventsResponse> {
  const { number, first, follow, sinceUs = 0, untilUs = Number.POSITIVE_INFINITY } = rangeOf(request);
  const wanted = (seq: number) => {
    const us = agentEvents.get(seq).timeMs * 1000;
    return us >= sinceUs && us <= untilUs;
  };
  const seqs: number[] = [];
  for (let seq = agentEvents.oldest; seq < agentEvents.next; seq++) if (wanted(seq)) seqs.push(seq);
  const live = follow && !first && number === 0 && request.since === undefined;
  const chosen = live
    ? []
    : number === 0 || number >= seqs.length
      ? seqs
      : first
        ? seqs.slice(0, number)
        : seqs.slice(-number);
  let next = agentEvents.next;
  const message = (seq: number) => {
    const { event, timeMs } = agentEvents.get(seq);
    return create(GetAgentEventsResponseSchema, {
      agentEvent: event,
      nodeName: context.nodeName,
      time: timestampFromMs(timeMs),
    });
  };
  for (const response of chosen.map(message)) yield response;
  while (follow && !signal.aborted) {
    for (next = Math.max(next, agentEvents.oldest); next < agentEvents.next; next++)
      if (wanted(next)) yield message(next);
    await new Promise<void>((resolve) => {
      const stop = agentEvents.subscribe(done);
      signal.addEventListener('abort', done);
      function done(): void {
        stop();
        signal.removeEventListener('abort', done);
        resolve();
      }
    });
  }
}
