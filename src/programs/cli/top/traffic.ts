// What flows add up to: reports tell of each connection from its beginning, and both nodes of a connection tell of it, so
// that what is new is counted once here.
import { type Flow, TraceReason, Verdict } from '../../../../proto/gen/flow/flow_pb.js';
import { moreOf } from '../observe/flow-more.ts';

/** What one flow adds. */
export interface Share {
  readonly bytes: number;
  readonly packets: number;
  readonly connections: number;
  readonly drops: number;
  /** Of a connection that ended; undefined where it was not measured. */
  readonly rttUs?: number;
}

interface Connection {
  /** The node whose reports count: the first that told of it. */
  readonly node: string;
  bytes: number;
  packets: number;
  atMs: number;
  ended: boolean;
}

/** Reports come every few seconds; who has been silent for so long is forgotten. */
const forgetMs = 120_000;
const maxConnections = 200_000;

/** Tells what each flow adds to what was told before. */
export interface TrafficMeter {
  /** Undefined for flows that add nothing, such as the other end's word of a connection. */
  measure(flow: Flow): Share | undefined;
}

/**
 * Makes a meter. Of a connection that is older than `sinceMs` (since the epoch) the first report says what to count from,
 * and adds nothing.
 */
export function createTrafficMeter(sinceMs: number): TrafficMeter {
  const connections = new Map<string, Connection>();
  let tidiedMs = 0;

  function tidy(nowMs: number): void {
    if (nowMs - tidiedMs < forgetMs / 4 && connections.size < maxConnections) return;
    tidiedMs = nowMs;
    for (const [key, { atMs }] of connections) if (nowMs - atMs > forgetMs) connections.delete(key);
    // Those that were told of longest ago come first.
    for (const key of connections.keys()) {
      if (connections.size < maxConnections) break;
      connections.delete(key);
    }
  }

  return {
    measure(flow) {
      const atMs = timeMs(flow);
      const more = moreOf(flow);
      if (flow.verdict === Verdict.DROPPED)
        return { bytes: 0, packets: 0, connections: 0, drops: 1 + Number(more.reports_held_back ?? 0) };
      const key = connectionOf(flow);
      if (key === undefined) return undefined;
      const node = flow.nodeName;
      const before = connections.get(key);
      // The other node's words of the same connection; of one that has ended they may come late.
      if (before !== undefined && before.node !== node && atMs - before.atMs < forgetMs) return undefined;
      tidy(atMs);
      const remember = (bytes: number, packets: number, ended: boolean) => {
        connections.delete(key);
        connections.set(key, { node, bytes, packets, atMs, ended });
      };
      if (more.report === undefined) {
        if (flow.traceReason !== TraceReason.NEW) return undefined;
        // A node that has both ends tells of the beginning twice.
        if (before !== undefined && !before.ended) return undefined;
        remember(0, 0, false);
        return { bytes: 0, packets: 0, connections: 1, drops: 0 };
      }
      const bytes = number(more.bytes_sent) + number(more.bytes_received);
      const packets = number(more.packets_sent) + number(more.packets_received);
      const known = before !== undefined && !before.ended;
      const isNew = atMs - number(more.duration_ms) >= sinceMs;
      remember(bytes, packets, more.report === 'end');
      if (!known && !isNew) return undefined;
      const from = known ? before : { bytes: 0, packets: 0 };
      return {
        bytes: Math.max(0, bytes - from.bytes),
        packets: Math.max(0, packets - from.packets),
        connections: known ? 0 : 1,
        drops: 0,
        ...(more.report === 'end' && number(more.rtt_us) > 0 && { rttUs: number(more.rtt_us) }),
      };
    },
  };
}

/** When a flow was seen, in milliseconds since the epoch. */
export function timeMs(flow: Flow): number {
  return Number(flow.time?.seconds ?? 0n) * 1000 + (flow.time?.nanos ?? 0) / 1e6;
}

function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

/** The connection of a flow, whichever way it went; undefined for what is none. */
function connectionOf(flow: Flow): string | undefined {
  const protocol = flow.l4?.protocol;
  if (flow.IP === undefined || protocol === undefined || !hasPorts(protocol)) return undefined;
  if (flow.l7 !== undefined) return undefined;
  const { sourcePort, destinationPort } = protocol.value;
  return `${protocol.case} ${flow.IP.source} ${sourcePort} ${flow.IP.destination} ${destinationPort}`;
}

type Transport = NonNullable<Flow['l4']>['protocol'];

function hasPorts(protocol: Transport): protocol is Extract<Transport, { case: 'TCP' | 'UDP' | 'SCTP' }> {
  return protocol.case === 'TCP' || protocol.case === 'UDP' || protocol.case === 'SCTP';
}
