// The flows of one agent, put together: events in, ring, losses, what the agent did, and the server that hands them out.
import { randomBytes } from 'node:crypto';
import type { CookieRow, EndpointRow, NodeRow, PolicyObjectRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { Counter } from '../../kernel/datapath.gen.ts';
import type { RingBuffer } from '../../kernel/ring-buffer.ts';
import { createAgentEvents } from './agent-events.ts';
import { createFlowEnds, type EndTables } from './flow-ends.ts';
import { createRevisedRules } from './flow-policies.ts';
import { createFlowRing } from './flow-ring.ts';
import { createLossLog, LossSource } from './loss-log.ts';
import { readEvents } from './read-events.ts';
import { createFlowRecorder, type FlowServices } from './record-flows.ts';
import { type FlowServer, serveFlows } from './serve-flows.ts';
import { createWallClock } from './wall-clock.ts';

/** What the flows are made from. */
export interface FlowObserverOptions extends EndTables {
  readonly nodeName: string;
  readonly version: string;
  readonly startedAtMs: number;
  readonly capacity: number;
  readonly events: RingBuffer;
  /** Sums a counter of the datapath over all processors. */
  readonly counter: (index: number) => number;
  readonly cookie: (cookie: number) => CookieRow | undefined;
  readonly services?: FlowServices;
  readonly endpoints: ReadTable<EndpointRow>;
  readonly policies: ReadTable<PolicyObjectRow>;
  readonly nodes: ReadTable<NodeRow>;
  /** Counters as an earlier run of the agent left them, so that what was lost in between is told too. */
  readonly countersBefore?: FlowCounters;
  readonly onCounters?: (counters: FlowCounters) => void;
  readonly onError: (error: unknown) => void;
  /** Reading begins then: when the rules behind the verdicts are known. */
  readonly ready: Promise<unknown>;
}

/** Counters of what the kernel could not report, as last told. */
export interface FlowCounters {
  readonly lost: number;
  readonly heldBack: number;
}

/** Flows of an agent. */
export interface FlowObserver {
  serve(address: string): Promise<FlowServer>;
  status(): FlowStatus;
  close(): void;
}

/** What `weir status` says about flows. */
export interface FlowStatus {
  readonly flows: number;
  readonly capacity: number;
  readonly seenFlows: number;
  readonly seenEvents: number;
  readonly malformedEvents: number;
  readonly flowsPerSecond: number;
  readonly backlogBytes: number;
  /** The kernel's ring was full. */
  readonly lostInKernel: number;
  /** Drops over the rate of reports. */
  readonly heldBack: number;
}

const rateWindowMs = 60_000;

/** Starts reading the datapath's events. */
export function createFlowObserver(options: FlowObserverOptions): FlowObserver {
  const { capacity, events, counter } = options;
  const clock = createWallClock();
  const ends = createFlowEnds(options);
  const rules = createRevisedRules(options.cookie, options.policies);
  const ring = createFlowRing(capacity, rules.find);
  const losses = createLossLog();
  const agentEvents = createAgentEvents(options);
  const recorder = createFlowRecorder({ ring, ends, clock, cookie: rules.find, services: options.services });
  const rate: { atMs: number; seen: number }[] = [{ atMs: performance.now(), seen: 0 }];
  let told = startingCounters(options.countersBefore, readCounters());

  function readCounters(): FlowCounters {
    return { lost: counter(Counter.COUNTER_EVENTS_LOST), heldBack: counter(Counter.COUNTER_DROPS_UNREPORTED) };
  }

  function afterReading(records: number): void {
    const now = performance.now();
    const counters = readCounters();
    const wallMs = Date.now();
    losses.add(LossSource.kernelRing, counters.lost - told.lost, ring.next, wallMs);
    losses.add(LossSource.heldBack, counters.heldBack - told.heldBack, ring.next, wallMs);
    const lost = counters.lost !== told.lost || counters.heldBack !== told.heldBack;
    told = counters;
    if (lost) options.onCounters?.(counters);
    if (records > 0 || lost) ring.announce();
    if (now - rate.at(-1)!.atMs < 1000) return;
    clock.calibrate();
    rate.push({ atMs: now, seen: ring.next });
    while (now - rate[0]!.atMs > rateWindowMs) rate.shift();
  }

  function flowsRate(): number {
    const [from, to] = [rate[0]!, { atMs: performance.now(), seen: ring.next }];
    return to.atMs - from.atMs < 1 ? 0 : ((to.seen - from.seen) * 1000) / (to.atMs - from.atMs);
  }

  let stop = () => {};
  let closed = false;
  void options.ready.then(() => {
    if (!closed)
      stop = readEvents({ ring: events, onRecord: recorder.record, onRead: afterReading, onError: options.onError });
  });
  const context = { nodeName: options.nodeName, version: options.version, run: randomBytes(8).toString('hex') };
  return {
    serve: (address) =>
      serveFlows({
        address,
        nodes: options.nodes,
        source: { ring, losses, agentEvents, context, startedAtMs: options.startedAtMs, flowsRate },
      }),
    status: () => ({
      flows: ring.next - ring.oldest,
      capacity,
      seenFlows: ring.next,
      seenEvents: recorder.events,
      malformedEvents: recorder.malformed,
      flowsPerSecond: Math.round(flowsRate() * 10) / 10,
      backlogBytes: events.backlogBytes(),
      lostInKernel: losses.total(LossSource.kernelRing),
      heldBack: losses.total(LossSource.heldBack),
    }),
    close() {
      closed = true;
      stop();
      ends.close();
      rules.close();
      agentEvents.close();
    },
  };
}

/**
 * Counters only grow; where they did not, the maps are new and everything in them is to be told. Where nobody knows what
 * was told (the file is gone, or nothing had been lost before), all of it is told too: rather twice than never.
 */
function startingCounters(before: FlowCounters | undefined, now: FlowCounters): FlowCounters {
  if (before === undefined) return { lost: 0, heldBack: 0 };
  return {
    lost: before.lost > now.lost ? 0 : before.lost,
    heldBack: before.heldBack > now.heldBack ? 0 : before.heldBack,
  };
}
