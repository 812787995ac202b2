// The flows of one node, as an async iterator. When a followed node goes away, that is said, and it is tried again from
// where it stopped.
import { existsSync } from 'node:fs';
import { clone, type DescMethod, type Message } from '@bufbuild/protobuf';
import { type Timestamp, timestampFromMs } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import {
  type GetFlowsRequest,
  GetFlowsRequestSchema,
  type GetFlowsResponse,
  Observer,
} from '../../../../proto/gen/observer/observer_pb.js';
import { errorText, WeirError } from '../../../core/errors.ts';
import { flowServerClient, flowServerTarget } from '../flow-server.ts';
import { type Target, targetName, unreachable } from '../targets.ts';

/** A response and its time. */
export interface NodeFlow {
  readonly timeNs: bigint;
  readonly response: GetFlowsResponse;
}

const connectTimeoutMs = 3_000;
const retryMs = { first: 250, most: 5_000 } as const;

/** Reads once, until the node has told all that was asked for. Throws AGENT_UNREACHABLE, or CONFIG_INVALID for what the node refuses. */
export async function* readNode(
  target: Target,
  request: GetFlowsRequest,
  onConnected: () => void = () => {},
): AsyncGenerator<NodeFlow> {
  const responses = readStream<GetFlowsResponse>(target, Observer.method.getFlows, request, onConnected);
  for await (const response of responses) yield { timeNs: timestampNs(response.time), response };
}

/** Nanoseconds since the epoch. */
export function timestampNs(
  { seconds, nanos }: Pick<Timestamp, 'seconds' | 'nanos'> = { seconds: 0n, nanos: 0 },
): bigint {
  return seconds * 1_000_000_000n + BigInt(nanos);
}

/** Calls a method of a node's flow server that gives a stream. Throws what readNode throws. */
export async function* readStream<T>(
  target: Target,
  method: DescMethod,
  request: Message,
  onConnected: () => void = () => {},
): AsyncGenerator<T> {
  if (target.server === undefined && !existsSync(target.hubbleSocket))
    throw unreachable(target, `its flow socket ${target.hubbleSocket} is not there`);
  const where = target.server ?? flowServerTarget({ server: `unix:${target.hubbleSocket}` });
  const client = flowServerClient(method.parent, where);
  try {
    await new Promise<void>((resolve, reject) => {
      client.waitForReady(Date.now() + connectTimeoutMs, (error) =>
        error ? reject(unreachable(target, `nothing answers on ${where.address}`)) : resolve(),
      );
    });
    onConnected();
    const call = client[method.localName]!(request) as grpc.ClientReadableStream<T>;
    try {
      yield* call as AsyncIterable<T>;
    } catch (error) {
      throw asWeirError(target, error);
    } finally {
      call.cancel();
    }
  } finally {
    client.close();
  }
}

function asWeirError(target: Target, error: unknown): Error {
  const { code, details } = error as { code?: number; details?: string };
  if (code === grpc.status.INVALID_ARGUMENT)
    return new WeirError('CONFIG_INVALID', `${targetName(target)} refuses the request: ${details}`);
  if (code === grpc.status.UNIMPLEMENTED)
    return new WeirError(
      'CONFIG_INVALID',
      `${targetName(target)} does not know of this`,
      'Ask an agent of this version.',
    );
  if (code === grpc.status.UNAUTHENTICATED || code === grpc.status.PERMISSION_DENIED)
    return new WeirError('ACCESS_REFUSED', `${targetName(target)} refuses: ${details}`);
  // Aborted is what may be seen differently when it is asked for again.
  if (
    code === grpc.status.ABORTED ||
    code === grpc.status.UNAVAILABLE ||
    code === grpc.status.CANCELLED ||
    code === grpc.status.INTERNAL
  )
    return unreachable(target, details || errorText(error));
  return error instanceof Error ? error : new Error(String(error));
}

/** Follows for ever. `say` is told when the node goes and when it is back, in words and which of the two. */
export async function* followNode(
  target: Target,
  request: GetFlowsRequest,
  say: (message: string, state: 'away' | 'back') => void,
): AsyncGenerator<NodeFlow> {
  let asked = request;
  let lastNs = 0n;
  let waitMs = 0;
  let down = false;
  const name = target.node ?? target.socket;
  for (;;) {
    try {
      const connected = () => {
        if (down) say(`${name} is back`, 'back');
        down = false;
        waitMs = 0;
      };
      for await (const item of readNode(target, asked, connected)) {
        if (item.timeNs > lastNs) lastNs = item.timeNs;
        yield item;
      }
      if (request.until !== undefined) return;
      throw unreachable(target, 'it ended the stream');
    } catch (error) {
      if (!(error instanceof WeirError) || error.code !== 'AGENT_UNREACHABLE') throw error;
      if (!down) say(`${error.message}; trying again`, 'away');
      if (!down) asked = fromThere(request, lastNs);
      down = true;
    }
    waitMs = Math.min(retryMs.most, Math.max(retryMs.first, waitMs * 2));
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** The rest of a request: what is after the last flow that was seen, or from now on. */
function fromThere(request: GetFlowsRequest, lastNs: bigint): GetFlowsRequest {
  const rest = clone(GetFlowsRequestSchema, request);
  rest.number = 0n;
  rest.first = false;
  const us = lastNs / 1000n + 1n;
  rest.since =
    lastNs === 0n
      ? (request.since ?? timestampFromMs(Date.now()))
      : { ...timestampFromMs(0), seconds: us / 1_000_000n, nanos: Number(us % 1_000_000n) * 1000 };
  return rest;
}
