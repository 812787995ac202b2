// What the relay's services have in common: the range of a request over all nodes, and calls to every node.
import { create } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import type { NodeNews } from './merge-nodes.ts';
import type { NodeLink, PeerPool } from './peer-pool.ts';

/** For each node; one that does not answer is left out. */
export const nodeTimeoutMs = 3_000;

/** News of nodes in the contract's words. */
export const nodeStates: Readonly<Record<NodeNews, NodeState>> = {
  connected: NodeState.NODE_CONNECTED,
  unavailable: NodeState.NODE_UNAVAILABLE,
  gone: NodeState.NODE_GONE,
  error: NodeState.NODE_ERROR,
};

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
