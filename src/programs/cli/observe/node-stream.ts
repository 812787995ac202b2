// The flows of one node, as an async iterator. When a followed node goes away, that is said, and it is tried again from
// where it stopped.
import { existsSync } from 'node:fs';
import { clone, type DescMethod, fromBinary, type Message, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { type Timestamp, timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type GetFlowsRequest,
  GetFlowsRequestSchema,
  type GetFlowsResponse,
  GetFlowsResponseSchema,
  Observer,
} from '../../../../proto/gen/observer/observer_pb.js';
import { errorText, WeirError } from '../../../core/errors.ts';
import { flowShape, readResponse, view } from '../../../observe/relay/response-view.ts';
import { connectRpc, type RpcConnection } from '../../../observe/rpc/rpc-connection.ts';
import { methodPath } from '../../../observe/rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../../../observe/rpc/rpc-status.ts';
import { flowServerTarget } from '../flow-server.ts';
import { type Target, targetName, unreachable } from '../targets.ts';

/** A response and its time. */
export interface NodeFlow {
  readonly timeNs: bigint;
  readonly response: GetFlowsResponse;
  /** As it came; undefined for what did not come from a node. */
  readonly bytes?: Uint8Array;
}

const connectTimeoutMs = 3_000;
const connectAgainMs = 100;
const retryMs = { first: 250, most: 5_000 } as const;

/** How much of a node's stream may wait in this process. */
interface ReadLimits {
  /**
   * What a node may send before it hears of this reader again: with the 64 KiB that are usual, a reader that is given
   * the processor ten times a second gets some thousand flows a second.
   */
  readonly windowBytes: number;
  /** Messages that wait here; what is more waits in the window. */
  readonly queueBytes: number;
}

/** For the windows of all nodes that are read at the same time, and again for their queues. */
const sharedBytes = 128 << 20;

/** The limits of one of so many nodes that are read at the same time: together they hold no more than a few do. */
export function readLimits(nodes: number): ReadLimits {
  const share = Math.floor(sharedBytes / nodes);
  return { windowBytes: Math.min(4 << 20, share), queueBytes: Math.min(1 << 20, share) };
}

/**
 * Reads once, until the node has told all that was asked for. `nodes` are read at the same time, this one among them.
 * Throws AGENT_UNREACHABLE, or CONFIG_INVALID for what the node refuses.
 */
export async function* readNode(target: Target, request: GetFlowsRequest, nodes = 1): AsyncGenerator<NodeFlow> {
  for await (const piece of readNodePieces(target, request, readLimits(nodes))) yield* piece;
}

async function* readNodePieces(
  target: Target,
  request: GetFlowsRequest,
  limits: ReadLimits,
  onConnected: () => void = () => {},
): AsyncGenerator<Iterable<NodeFlow>> {
  for await (const piece of readPieces(target, Observer.method.getFlows, request, limits, onConnected))
    yield flowsIn(piece);
}

/** A response as it came, decoded when somebody looks into it. */
class WireFlow implements NodeFlow {
  readonly bytes: Uint8Array;
  #response: GetFlowsResponse | undefined;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
  get response(): GetFlowsResponse {
    this.#response ??= fromBinary(GetFlowsResponseSchema, this.bytes);
    return this.#response;
  }
  get timeNs(): bigint {
    readResponse(this.bytes, 0, this.bytes.length, flowShape);
    return Number.isNaN(view.timeUs) ? 0n : BigInt(view.seconds) * 1_000_000_000n + BigInt(view.nanos);
  }
}

function* flowsIn({ bytes, starts, ends }: Piece): Generator<NodeFlow> {
  for (const [i, start] of starts.entries()) yield new WireFlow(bytes.subarray(start, ends[i]));
}

/** Nanoseconds since the epoch. */
export function timestampNs(
  { seconds, nanos }: Pick<Timestamp, 'seconds' | 'nanos'> = { seconds: 0n, nanos: 0 },
): bigint {
  return seconds * 1_000_000_000n + BigInt(nanos);
}

/** Messages that came together. */
interface Piece {
  readonly bytes: Buffer;
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

/** Calls a method of a node's flow server that gives a stream. Throws what readNode throws. */
export async function* readStream<M extends DescMethod>(
  target: Target,
  method: M,
  request: Message,
): AsyncGenerator<MessageShape<M['output']>> {
  for await (const { bytes, starts, ends } of readPieces(target, method, request, readLimits(1)))
    for (const [i, start] of starts.entries())
      yield fromBinary(method.output, bytes.subarray(start, ends[i])) as MessageShape<M['output']>;
}

async function* readPieces(
  target: Target,
  method: DescMethod,
  request: Message,
  { windowBytes, queueBytes }: ReadLimits,
  onConnected: () => void = () => {},
): AsyncGenerator<Piece> {
  const connection = await connect(target, windowBytes);
  onConnected();
  let pieces: Piece[] = [];
  let queued = 0;
  let paused = false;
  let ended: { readonly error: RpcError | undefined } | undefined;
  let wake = () => {};
  try {
    const stream = connection.stream(methodPath(method), toBinary(method.input, request), {
      messages(bytes, starts, ends) {
        pieces.push({ bytes, starts, ends });
        queued += bytes.length;
        if (queued > queueBytes && !paused) {
          paused = true;
          stream.pause();
        }
        wake();
      },
      end(error) {
        ended = { error };
        wake();
      },
    });
    try {
      for (;;) {
        const now = pieces;
        pieces = [];
        queued = 0;
        for (const piece of now) yield piece;
        if (pieces.length > 0) continue;
        if (paused) {
          paused = false;
          stream.resume();
        }
        if (ended?.error !== undefined) throw ended.error;
        if (ended !== undefined) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      stream.cancel();
    }
  } catch (error) {
    throw asWeirError(target, error);
  } finally {
    connection.close();
  }
}

/** Connects to a node's flow server, which may be about to begin. */
async function connect(target: Target, windowBytes: number): Promise<RpcConnection> {
  if (target.server === undefined && !existsSync(target.hubbleSocket))
    throw unreachable(target, `its flow socket ${target.hubbleSocket} is not there`);
  const where = target.server ?? flowServerTarget({ server: `unix:${target.hubbleSocket}` });
  for (const until = performance.now() + connectTimeoutMs; ; ) {
    try {
      return await connectRpc(where.rpc, windowBytes, until - performance.now());
    } catch (error) {
      if (!mayPass(error) || performance.now() + connectAgainMs > until)
        throw unreachable(target, `no connection to ${where.address}: ${errorText(error)}`);
      await new Promise((resolve) => setTimeout(resolve, connectAgainMs));
    }
  }
}

/** Whether to connect again may help: papers that are refused, as all that TLS says, stay so. Codes of sockets have no `_`. */
function mayPass(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return code === undefined || /^E[A-Z0-9]+$/.test(code);
}

function asWeirError(target: Target, error: unknown): Error {
  if (!(error instanceof RpcError)) return error instanceof Error ? error : new Error(String(error));
  const { code, message: details } = error;
  if (code === RpcCode.invalidArgument)
    return new WeirError('CONFIG_INVALID', `${targetName(target)} refuses the request: ${details}`);
  if (code === RpcCode.unimplemented)
    return new WeirError(
      'CONFIG_INVALID',
      `${targetName(target)} does not know of this`,
      'Ask an agent of this version.',
    );
  if (code === RpcCode.unauthenticated || code === RpcCode.permissionDenied)
    return new WeirError('ACCESS_REFUSED', `${targetName(target)} refuses: ${details}`);
  // Aborted is what may be seen differently when it is asked for again.
  if (
    code === RpcCode.aborted ||
    code === RpcCode.unavailable ||
    code === RpcCode.cancelled ||
    code === RpcCode.internal
  )
    return unreachable(target, details || errorText(error));
  return error;
}

/**
 * Follows for ever, in pieces that came together. `say` is told when the node goes and when it is back, in words and
 * which of the two. `nodes` are followed at the same time, this one among them.
 */
export async function* followNode(
  target: Target,
  request: GetFlowsRequest,
  say: (message: string, state: 'away' | 'back') => void,
  nodes = 1,
): AsyncGenerator<Iterable<NodeFlow>> {
  let asked = request;
  let lastNs = 0n;
  let waitMs = 0;
  let down = false;
  const name = target.node ?? target.socket;
  function* noting(piece: Iterable<NodeFlow>): Generator<NodeFlow> {
    for (const item of piece) {
      yield item;
      if (item.timeNs > lastNs) lastNs = item.timeNs;
    }
  }
  for (;;) {
    try {
      const connected = () => {
        if (down) say(`${name} is back`, 'back');
        down = false;
        waitMs = 0;
      };
      for await (const piece of readNodePieces(target, asked, readLimits(nodes), connected)) yield noting(piece);
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
