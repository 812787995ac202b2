// What a reader of flows was given and what it was told is missing, node by node, held against the numbers that flows have:
// a flow that is missing without a word is an error at its place.
import assert from 'node:assert/strict';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { DropReason, LostEventSource } from '../../proto/gen/flow/flow_pb.js';
import { GetFlowsRequestSchema, GetFlowsResponseSchema, Observer } from '../../proto/gen/observer/observer_pb.js';
import { connectRpc } from '../../src/observe/rpc/rpc-connection.ts';
import { methodPath } from '../../src/observe/rpc/rpc-service.ts';

/** One node's flows, as one reader has got them. */
export interface FlowLedger {
  /** The number of the first flow that was given; undefined while there is none. */
  readonly first: number | undefined;
  /** The number after the last flow that was given or told to be overwritten. */
  readonly next: number;
  readonly given: number;
  /** Of these, denials. */
  readonly denied: number;
  /** All that was told to be lost. */
  readonly allLost: number;
  /** How often that was told. */
  readonly tellings: number;
  flow(uuid: string, denied: boolean): void;
  loss(source: string, count: number): void;
  /** What was told to be lost, by the contract's name of where. */
  lost(source: LostSource): number;
}

/** The contract's names, and that of the exporters. */
export type LostSource = Exclude<keyof typeof LostEventSource, 'UNKNOWN'> | 'EXPORT_QUEUE';

/** The number that a flow has in its agent's memory: half of its uuid. */
function numberOf(uuid: string): number {
  const [, , , high = '', low = ''] = uuid.split('-');
  return Number.parseInt(high.slice(1) + low, 16);
}

/** Opens the book of a node; `gapless` false where the reader's own queue may lose flows, and be told so later. */
export function openLedger(reader: string, gapless = true): FlowLedger {
  const lost = new Map<string, number>();
  let first: number | undefined;
  let next = 0;
  let given = 0;
  let denied = 0;
  let tellings = 0;
  return {
    get first() {
      return first;
    },
    get next() {
      return next;
    },
    get given() {
      return given;
    },
    get denied() {
      return denied;
    },
    get tellings() {
      return tellings;
    },
    get allLost() {
      return [...lost.values()].reduce((sum, each) => sum + each, 0);
    },
    flow(uuid, isDenied) {
      const number = numberOf(uuid);
      if (gapless && first !== undefined) assert.equal(number, next, `${reader}: flows are missing without a word`);
      first ??= number;
      next = number + 1;
      given++;
      if (isDenied) denied++;
    },
    loss(source, count) {
      lost.set(source, (lost.get(source) ?? 0) + count);
      tellings++;
      if (source === 'HUBBLE_RING_BUFFER' && first !== undefined) next += count;
    },
    lost: (source) => lost.get(source) ?? 0,
  };
}

/** A client that follows flows, and reads when it is told to. */
export interface FlowFollower {
  readonly name: string;
  /** By node. */
  readonly ledgers: ReadonlyMap<string, FlowLedger>;
  /** From now on it takes nothing but what `sip` asks for. */
  hold(): void;
  /** Takes one piece of what has come. */
  sip(): void;
  /** Reads on, for good. */
  drink(): void;
  /** Throws when what came is not in order, or ended. */
  check(): void;
  close(): void;
}

/** Follows an agent or a relay by its unix socket. */
export async function followFlows(name: string, socket: string): Promise<FlowFollower> {
  const ledgers = new Map<string, FlowLedger>();
  const connection = await connectRpc({ address: `unix:${socket}` });
  let problem: Error | undefined;
  let thirst: 'all' | 'one' | 'none' = 'all';
  const ledgerOf = (node: string) => {
    const ledger = ledgers.get(node) ?? openLedger(`${name}, ${node}`);
    ledgers.set(node, ledger);
    return ledger;
  };

  function take(bytes: Uint8Array): void {
    const { responseTypes, nodeName } = fromBinary(GetFlowsResponseSchema, bytes);
    if (responseTypes.case === 'flow') {
      const { uuid, dropReasonDesc } = responseTypes.value;
      ledgerOf(nodeName).flow(uuid, dropReasonDesc === DropReason.POLICY_DENIED);
    } else if (responseTypes.case === 'lostEvents') {
      const { source, numEventsLost } = responseTypes.value;
      ledgerOf(nodeName).loss(LostEventSource[source]!, Number(numEventsLost));
    }
  }

  const request = toBinary(GetFlowsRequestSchema, create(GetFlowsRequestSchema, { follow: true }));
  const stream = connection.stream(methodPath(Observer.method.getFlows), request, {
    messages(bytes, starts, ends) {
      for (const [i, start] of starts.entries()) take(bytes.subarray(start, ends[i]));
      if (thirst === 'all') return;
      thirst = 'none';
      stream.pause();
    },
    end(error) {
      problem = error ?? new Error(`${name}: the stream ended`);
    },
  });
  return {
    name,
    ledgers,
    hold() {
      thirst = 'none';
      stream.pause();
    },
    sip() {
      thirst = 'one';
      stream.resume();
    },
    drink() {
      thirst = 'all';
      stream.resume();
    },
    check() {
      if (problem !== undefined) throw problem;
    },
    close() {
      stream.cancel();
      connection.close();
    },
  };
}
