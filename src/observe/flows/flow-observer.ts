// The flows of one agent, put together: events in, ring, losses, what the agent did, and the server that hands them out.
import type { CookieRow, EndpointRow, NodeRow, PolicyObjectRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { Counter, EventType } from '../../kernel/datapath.gen.ts';
import type { RingBuffer } from '../../kernel/ring-buffer.ts';
import { createDnsNames } from '../dns/dns-names.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { RpcService } from '../rpc/rpc-service.ts';
import { createAgentEvents } from './agent-events.ts';
import { createFlowEnds, type EndTables } from './flow-ends.ts';
import { createRevisedRules } from './flow-policies.ts';
import { createFlowRing, type FlowRing, type NewRow } from './flow-ring.ts';
import type { FlowEnd } from './flow-row.ts';
import type { FlowSockets } from './flow-sockets.ts';
import { createLossLog, type LossLog, LossSource } from './loss-log.ts';
import { readEvents } from './read-events.ts';
import { createFlowRecorder, type FlowProcesses, type FlowServices } from './record-flows.ts';
import { type FlowListener, type FlowServer, serveFlows } from './serve-flows.ts';
import { createWallClock } from './wall-clock.ts';

/** What the flows are made from. */
export interface FlowObserverOptions extends EndTables {
  readonly nodeName: string;
  readonly version: string;
  /** Of FlowContext. */
  readonly run: string;
  readonly deviceName?: (ifindex: number) => string;
  readonly startedAtMs: number;
  readonly capacity: number;
  readonly events: RingBuffer;
  /** Sums a counter of the datapath over all processors. */
  readonly counter: (index: number) => number;
  readonly cookie: (cookie: number) => CookieRow | undefined;
  readonly services?: FlowServices;
  /** The node's processes; `read` takes what the kernel has told of them. */
  readonly processes?: FlowProcesses & { read(): void };
  readonly sockets?: FlowSockets;
  /** Told of every row as it is added: the event at `words[from..]`, what is known about it, and its number. */
  readonly onRow?: (words: Int32Array, from: number, row: NewRow, seq: number) => void;
  readonly endpoints: ReadTable<EndpointRow>;
  readonly policies: ReadTable<PolicyObjectRow>;
  readonly nodes: ReadTable<NodeRow>;
  /** Served beside the flows. */
  readonly rpcServices?: readonly RpcService[];
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
  serve(address: string, listener?: FlowListener, onListenError?: (error: unknown) => void): Promise<FlowServer>;
  status(): FlowStatus;
  /** Whom processes talk to, by the flows there are: the newest first, each once. */
  talks(): ProcessTalk[];
  /** For readers within this process. */
  readonly ring: FlowRing;
  readonly losses: LossLog;
  close(): void;
}

/** A process and another end. */
export interface ProcessTalk {
  readonly execId: string;
  /** `outgoing` where the process began the connection. */
  readonly direction: 'outgoing' | 'incoming';
  readonly peer: string;
  readonly port: number;
  readonly protocol: number;
  readonly verdict: 'forwarded' | 'dropped';
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
  /** Flows that were overwritten before a reader came to them, for each reader. */
  readonly overtaken: number;
}

const rateWindowMs = 60_000;

/** Starts reading the datapath's events. */
export function createFlowObserver(options: FlowObserverOptions): FlowObserver {
  const { capacity, events, counter } = options;
  const clock = createWallClock();
  const ends = createFlowEnds(options);
  const rules = createRevisedRules(options.cookie, options.policies);
  const ring = createFlowRing(capacity, rules.find, options.onRow);
  const losses = createLossLog();
  const agentEvents = createAgentEvents(options);
  const messages = createDnsNames();
  const recorder = createFlowRecorder({
    ring,
    ends,
    clock,
    cookie: rules.find,
    services: options.services,
    processes: options.processes,
    sockets: options.sockets,
    dns: { messages, names: (endpoint, address) => messages.names(endpoint, address, Date.now()) },
  });
  const stopForgetting = options.endpoints.subscribe(({ changes }) => {
    for (const { before, after } of changes) if (after === undefined) messages.forget(before!.id);
  });
  const rate: { atMs: number; seen: number }[] = [{ atMs: performance.now(), seen: 0 }];
  let told = startingCounters(options.countersBefore, readCounters());

  function readCounters(): FlowCounters {
    return {
      lost: counter(Counter.COUNTER_EVENTS_LOST) + counter(Counter.COUNTER_DNS_LOST),
      heldBack: counter(Counter.COUNTER_DROPS_UNREPORTED),
    };
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
      stop = readEvents({
        ring: events,
        onRecord: recorder.record,
        onRead: afterReading,
        onError: options.onError,
        before: options.processes?.read,
      });
  });
  const context = {
    nodeName: options.nodeName,
    version: options.version,
    run: options.run,
    nodeLabels: labelsOf(options.nodes, options.nodeName),
    deviceName: options.deviceName,
  };
  return {
    serve: (address, listener, onListenError) =>
      serveFlows({
        address,
        listener,
        onListenError,
        nodes: options.nodes,
        services: options.rpcServices,
        source: { ring, losses, agentEvents, context, startedAtMs: options.startedAtMs, flowsRate },
      }),
    talks: () => talksOf(ring),
    ring,
    losses,
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
      overtaken: losses.total(LossSource.slowReader),
    }),
    close() {
      closed = true;
      stop();
      stopForgetting();
      ends.close();
      rules.close();
      agentEvents.close();
    },
  };
}

/** The labels of a node as flows have labels; the same list while they are the same. */
function labelsOf(nodes: ReadTable<NodeRow>, name: string): () => readonly string[] {
  let of: NodeRow['labels'];
  let texts: readonly string[] = [];
  return () => {
    const labels = nodes.get(name)?.labels;
    if (labels !== of) {
      of = labels;
      texts = Object.entries(labels ?? {}).map(([key, value]) => `k8s:${key}=${value}`);
    }
    return texts;
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

function talksOf(ring: FlowRing): ProcessTalk[] {
  const found = new Map<string, ProcessTalk>();
  for (let seq = ring.next - 1; seq >= ring.oldest; seq--) {
    const row = ring.get(seq);
    if (row.dns?.response) continue;
    const verdict = row.type === EventType.EVENT_DROP ? 'dropped' : 'forwarded';
    const [client, server] = row.reply ? [row.destination, row.source] : [row.source, row.destination];
    const port = row.reply ? row.sourcePort : row.destinationPort;
    const add = (
      process: ProcessRow | undefined,
      direction: ProcessTalk['direction'],
      end: FlowEnd,
      names: readonly string[],
    ) => {
      if (process === undefined) return;
      const peer = end.pod === '' ? (names[0] ?? end.address) : `${end.namespace}/${end.pod}`;
      const talk = { execId: process.execId, direction, peer, port, protocol: row.protocol, verdict } as const;
      const key = JSON.stringify(talk);
      if (!found.has(key)) found.set(key, talk);
    };
    add(
      row.reply ? row.destinationProcess : row.sourceProcess,
      'outgoing',
      server,
      row.reply ? row.sourceNames : row.destinationNames,
    );
    add(row.reply ? row.sourceProcess : row.destinationProcess, 'incoming', client, []);
  }
  return [...found.values()];
}
