// The flows of this node in memory: a fixed number of rows in one block of bytes, the oldest overwritten. A row is the
// datapath's event with the time of day in it; names and rules are references to shared values beside it.
import { EVENT_SIZE, EventFlags, EventOffset, EventType } from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { FlowDetails, FlowEnd, FlowRow, FlowRules, FlowService } from './flow-row.ts';
import { shownTcpFlags } from './tcp-flags.ts';

/** Rows by number; the numbers count from 0 and never return. */
export interface FlowRing {
  readonly capacity: number;
  /** The number of the oldest row there is. */
  readonly oldest: number;
  /** The number that the next row will have. */
  readonly next: number;
  /** Adds a row: the event at `words[from..]`, and what is known about it. */
  push(words: Int32Array, from: number, row: NewRow): void;
  /** A row that is still there. */
  get(seq: number): FlowRow;
  /** Microseconds since the epoch of a row, without building it. */
  timeUs(seq: number): number;
  /** The namespaces of the ends of all rows there are. */
  namespaces(): string[];
  /** Called after rows were added, once for many. */
  subscribe(listener: () => void): () => void;
  /** Tells the listeners. */
  announce(): void;
}

/** What is added to an event. Ends are the connection's: the originator first. */
export interface NewRow {
  seconds: number;
  nanos: number;
  durationNs: number;
  direction: number;
  originator: FlowEnd;
  responder: FlowEnd;
  /** The Service through which the responder was reached. */
  service: FlowService | undefined;
  /** The packet's source is the responder. */
  swapped: boolean;
  sourceAddress: string | undefined;
  egressRules: FlowRules | undefined;
  ingressRules: FlowRules | undefined;
  originatorProcess: ProcessRow | undefined;
  responderProcess: ProcessRow | undefined;
  /** Names under which the originator knows the responder. */
  names: readonly string[];
  details: FlowDetails | undefined;
}

const words = EVENT_SIZE / 4;
const directionAt = EVENT_SIZE - 1;
const swappedAt = EVENT_SIZE - 2;
const durationAt = EventOffset.createdNs;
const noNames: readonly string[] = [];
if (EventOffset.icmpCode >= swappedAt) throw new Error('struct event has no room left for the ring’s own fields');

/**
 * Makes a ring. `resolveCookie` is asked again for rules that were not known when the row was added; `onRow` is told of every
 * row.
 */
export function createFlowRing(
  capacity: number,
  resolveCookie: (cookie: number) => FlowRules | undefined = () => undefined,
  onRow?: (words: Int32Array, from: number, row: NewRow, seq: number) => void,
): FlowRing {
  const data = new Int32Array(capacity * words);
  const view = new DataView(data.buffer);
  const originators: (FlowEnd | undefined)[] = new Array(capacity).fill(undefined);
  const responders: (FlowEnd | undefined)[] = new Array(capacity).fill(undefined);
  const services: (FlowService | undefined)[] = new Array(capacity).fill(undefined);
  const egress: (FlowRules | undefined)[] = new Array(capacity).fill(undefined);
  const ingress: (FlowRules | undefined)[] = new Array(capacity).fill(undefined);
  const originatorProcesses: (ProcessRow | undefined)[] = new Array(capacity).fill(undefined);
  const responderProcesses: (ProcessRow | undefined)[] = new Array(capacity).fill(undefined);
  /** What few flows have. */
  const names = new Map<number, readonly string[]>();
  const details = new Map<number, FlowDetails>();
  const forged = new Map<number, string>();
  const listeners = new Set<() => void>();
  let next = 0;

  const rules = (known: FlowRules | undefined, at: number) => {
    if (known !== undefined) return known;
    const cookie = view.getUint32(at, true);
    return cookie === 0 ? undefined : resolveCookie(cookie);
  };

  return {
    capacity,
    get oldest() {
      return Math.max(0, next - capacity);
    },
    get next() {
      return next;
    },
    push(from, at, row) {
      const slot = next % capacity;
      const start = slot * words;
      for (let i = 0; i < words; i++) data[start + i] = from[at + i]!;
      const offset = slot * EVENT_SIZE;
      data[start] = row.seconds;
      data[start + 1] = row.nanos;
      view.setFloat64(offset + durationAt, row.durationNs, true);
      view.setUint8(offset + directionAt, row.direction);
      view.setUint8(offset + swappedAt, row.swapped ? 1 : 0);
      originators[slot] = row.originator;
      responders[slot] = row.responder;
      services[slot] = row.service;
      egress[slot] = row.egressRules;
      ingress[slot] = row.ingressRules;
      originatorProcesses[slot] = row.originatorProcess;
      responderProcesses[slot] = row.responderProcess;
      if (names.size > 0) names.delete(next - capacity);
      if (row.names.length > 0) names.set(next, row.names);
      if (details.size > 0) details.delete(next - capacity);
      if (row.details !== undefined) details.set(next, row.details);
      if (forged.size > 0) forged.delete(next - capacity);
      if (row.sourceAddress !== undefined) forged.set(next, row.sourceAddress);
      onRow?.(from, at, row, next);
      next++;
    },
    get(seq) {
      const slot = seq % capacity;
      const at = slot * EVENT_SIZE;
      const u8 = (field: number) => view.getUint8(at + field);
      const u64 = (field: number) => view.getUint32(at + field, true) + view.getUint32(at + field + 4, true) * 2 ** 32;
      const type = u8(EventOffset.type);
      const flags = u8(EventOffset.flags);
      const swapped = u8(swappedAt) === 1;
      const [originator, responder] = [originators[slot]!, responders[slot]!];
      const sport = view.getUint16(at + EventOffset.sport, false);
      const dport = view.getUint16(at + EventOffset.dport, false);
      const source = swapped ? responder : originator;
      // Most rows have neither.
      const known = names.size > 0 ? (names.get(seq) ?? noNames) : noNames;
      const more = details.size > 0 ? details.get(seq) : undefined;
      return {
        seq,
        seconds: view.getUint32(at, true),
        nanos: view.getUint32(at + 4, true),
        type,
        direction: u8(directionAt),
        protocol: u8(EventOffset.protocol),
        ipv6: (flags & EventFlags.EVENT_IPV6) !== 0,
        reply: swapped,
        source,
        destination: swapped ? originator : responder,
        sourceService: swapped ? services[slot] : undefined,
        destinationService: swapped ? undefined : services[slot],
        sourceAddress: (forged.size > 0 ? forged.get(seq) : undefined) ?? source.address,
        sourcePort: swapped ? dport : sport,
        destinationPort: swapped ? sport : dport,
        tcpFlags: shownTcpFlags(type, u8(EventOffset.reason), u8(EventOffset.tcpFlags), u8(EventOffset.tcpFlags + 1)),
        icmpType: u8(EventOffset.icmpType),
        icmpCode: u8(EventOffset.icmpCode),
        reason: type === EventType.EVENT_DROP || type === EventType.EVENT_END ? u8(EventOffset.reason) : 0,
        flags,
        bytes: [u64(EventOffset.bytes), u64(EventOffset.bytes + 8)],
        packets: [u64(EventOffset.packets), u64(EventOffset.packets + 8)],
        durationNs: view.getFloat64(at + durationAt, true),
        suppressed: view.getUint32(at + EventOffset.suppressed, true),
        egressRules: rules(egress[slot], at + EventOffset.cookie),
        ingressRules: rules(ingress[slot], at + EventOffset.cookie + 4),
        sourceProcess: swapped ? responderProcesses[slot] : originatorProcesses[slot],
        destinationProcess: swapped ? originatorProcesses[slot] : responderProcesses[slot],
        sourceNames: swapped ? known : noNames,
        destinationNames: swapped ? noNames : known,
        closedBy: type === EventType.EVENT_END ? u8(EventOffset.direction) : 0,
        tcp: more?.tcp,
        dns: more?.dns,
      };
    },
    timeUs(seq) {
      const at = (seq % capacity) * EVENT_SIZE;
      return view.getUint32(at, true) * 1e6 + Math.floor(view.getUint32(at + 4, true) / 1000);
    },
    namespaces() {
      const found = new Set<string>();
      for (const list of [originators, responders])
        for (const end of list) if (end !== undefined && end.namespace !== '') found.add(end.namespace);
      return [...found].sort();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    announce() {
      for (const listener of [...listeners]) listener();
    },
  };
}
