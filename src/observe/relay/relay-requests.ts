// What the relay's services have in common: the range of a request over all nodes, and calls to every node.
import { create } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { NodeState, type NodeStatusEvent, NodeStatusEventSchema } from '../../../proto/gen/relay/relay_pb.js';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import type { MergeQuery, NodeNews } from './merge-nodes.ts';
import type { NodeLink, PeerPool } from './peer-pool.ts';

/** For each node. */
export const nodeTimeoutMs = 3_000;

/** Nodes that are asked at the same time where answers are large. */
const askedAtOnce = 8;

/** News of nodes in the contract's words. */
const nodeStates: Readonly<Record<NodeNews, NodeState>> = {
  connected: NodeState.NODE_CONNECTED,
  unavailable: NodeState.NODE_UNAVAILABLE,
  gone: NodeState.NODE_GONE,
  error: NodeState.NODE_ERROR,
};

/** News of nodes from the relay `name`, as `encode` writes them into a response. */
export function nodeNews(
  name: string,
  everything: boolean,
  encode: (news: { value: NodeStatusEvent; nodeName: string; time: Timestamp }) => Uint8Array,
): MergeQuery['status'] {
  return (news, nodes, message) =>
    encode({
      value: create(NodeStatusEventSchema, {
        stateChange: nodeStates[news],
        nodeNames: [...nodes],
        // Why one is not reached is nothing for those who see a part only.
        message: everything ? message : '',
      }),
      nodeName: name,
      time: timestampFromMs(Date.now()),
    });
}

/** The part of a request that says which of all responses are wanted. */
interface Ranged {
  number: bigint;
  first?: boolean;
  readonly follow: boolean;
  since?: Timestamp;
  readonly until?: Timestamp;
}

/** The range as a merge takes it. */
export function rangeOf({ number, first = false, follow, since, until }: Ranged) {
  return {
    number: Number(number > BigInt(Number.MAX_SAFE_INTEGER) ? 0n : number),
    first,
    follow,
    live: follow && !first && number === 0n && since === undefined,
    endsByItself: until !== undefined,
  };
}

/** A request for all that there is: nodes cannot count what only the relay leaves out. */
export function uncounted<R extends Ranged>(request: R): R {
  if (request.number === 0n) return request;
  return { ...request, number: 0n, since: request.since ?? create(TimestampSchema) };
}

/** A request as it is, or for what is left of it from a time on, in microseconds since the epoch. */
export function resumed<R extends Ranged>(request: R, fromUs: number | undefined): R {
  if (fromUs === undefined) return request;
  const rest = { ...request, number: 0n, ...(request.first !== undefined && { first: false }) };
  rest.since = create(TimestampSchema, {
    seconds: BigInt(Math.floor(fromUs / 1e6)),
    nanos: Math.floor(fromUs % 1e6) * 1000,
  });
  return rest;
}

/** Asks all nodes that are connected; what does not answer is left out. */
export async function askAll<T>(pool: PeerPool, ask: (link: NodeLink) => Promise<T>): Promise<(T | undefined)[]> {
  await pool.settled(nodeTimeoutMs);
  return Promise.all(
    pool.nodes().map((link) => (link.connection === undefined ? undefined : ask(link).catch(() => undefined))),
  );
}

/**
 * Asks all nodes, a few at a time, and gives the names of those that did not answer. What `ask` throws as INVALID_ARGUMENT or
 * RESOURCE_EXHAUSTED ends it.
 */
export async function askEach(pool: PeerPool, ask: (link: NodeLink) => Promise<void>): Promise<string[]> {
  await pool.settled(nodeTimeoutMs);
  const waiting = pool.nodes().filter(({ connection }) => connection !== undefined);
  const silent = pool.nodes().flatMap(({ peer, connection }) => (connection === undefined ? [peer.name] : []));
  let refusal: RpcError | undefined;

  async function askNext(): Promise<void> {
    while (refusal === undefined) {
      const link = waiting.shift();
      if (link === undefined) return;
      try {
        await ask(link);
      } catch (error) {
        // What one node does not understand, none does: it is the client's mistake.
        const refuses =
          error instanceof RpcError &&
          [RpcCode.invalidArgument, RpcCode.resourceExhausted].includes(error.code as never);
        if (refuses) refusal ??= error;
        // One that left the cluster meanwhile is not missing.
        else if (pool.nodes().includes(link)) silent.push(link.peer.name);
      }
    }
  }
  await Promise.all(Array.from({ length: askedAtOnce }, askNext));
  if (refusal !== undefined) throw refusal;
  return silent.sort();
}
