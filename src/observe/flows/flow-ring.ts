// The flows of this node in memory: a fixed number of rows in one block of bytes, the oldest overwritten. A row is the
// datapath's event with the time of day in it; names and rules are references to shared values beside it.
import { EVENT_SIZE, EventOffset } from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { FlowDns, FlowEnd, FlowRow, FlowRules, FlowService, FlowTcp } from './flow-row.ts';
import { copyOfRow, RingRow, RowOffset } from './ring-row.ts';

/** Rows by number; the numbers count from 0 and never return. */
export interface FlowRing {
  readonly capacity: number;
  /** The number of the oldest row there is. */
  readonly oldest: number;
  /** The number that the next row will have. */
  readonly next: number;
  /** Adds a row: the event at `words[from..]`, and what is known about it. */
  push(words: Int32Array, from: number, row: NewRow): void;
  /** A row that is still there, to keep. */
  get(seq: number): FlowRow;
  /** For who looks at row after row and keeps none: one object, that is moved to a row which is still there. */
  cursor(): RowCursor;
  /** Microseconds since the epoch of a row, without building it. */
  timeUs(seq: number): number;
  /** The namespaces of the ends of all rows there are. */
  namespaces(): string[];
  /** Called after rows were added, once for many. */
  subscribe(listener: () => void): () => void;
  /** Tells the listeners. */
  announce(): void;
}

/** Reads rows where they lie. */
export interface RowCursor {
  /** The row of that number; valid until the next call, and until rows are added. */
  moveTo(seq: number): FlowRow;
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
  /** Copied: may be the same object for every row. */
  tcp: FlowTcp | undefined;
  dns: FlowDns | undefined;
}

const words = EVENT_SIZE / 4;
const tcpWord = RowOffset.tcp / 4;
const hasTcpWord = RowOffset.hasTcp / 4;

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
  const names: (readonly string[] | undefined)[] = new Array(capacity).fill(undefined);
  /** What few flows have. */
  const dns = new Map<number, FlowDns>();
  const forged = new Map<number, string>();
  const listeners = new Set<() => void>();
  let next = 0;

  const rules = (known: FlowRules | undefined, at: number) => {
    if (known !== undefined) return known;
    const cookie = view.getUint32(at, true);
    return cookie === 0 ? undefined : resolveCookie(cookie);
  };
  const parts = {
    capacity,
    view,
    originators,
    responders,
    services,
    originatorProcesses,
    responderProcesses,
    egressRules: (slot: number) => rules(egress[slot], slot * EVENT_SIZE + EventOffset.cookie),
    ingressRules: (slot: number) => rules(ingress[slot], slot * EVENT_SIZE + EventOffset.cookie + 4),
    names,
    dns,
    forged,
  };
  const own = new RingRow(parts);

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
      view.setFloat64(offset + RowOffset.durationNs, row.durationNs, true);
      view.setUint8(offset + RowOffset.direction, row.direction);
      view.setUint8(offset + RowOffset.swapped, row.swapped ? 1 : 0);
      const { tcp } = row;
      data[start + hasTcpWord] = tcp === undefined ? 0 : 1;
      if (tcp !== undefined) {
        data[start + tcpWord] = tcp.handshakeUs;
        data[start + tcpWord + 1] = tcp.rttUs;
        data[start + tcpWord + 2] = tcp.minRttUs;
        data[start + tcpWord + 3] = tcp.retransmits;
      }
      originators[slot] = row.originator;
      responders[slot] = row.responder;
      services[slot] = row.service;
      egress[slot] = row.egressRules;
      ingress[slot] = row.ingressRules;
      originatorProcesses[slot] = row.originatorProcess;
      responderProcesses[slot] = row.responderProcess;
      names[slot] = row.names;
      if (dns.size > 0) dns.delete(next - capacity);
      if (row.dns !== undefined) dns.set(next, row.dns);
      if (forged.size > 0) forged.delete(next - capacity);
      if (row.sourceAddress !== undefined) forged.set(next, row.sourceAddress);
      onRow?.(from, at, row, next);
      next++;
    },
    get: (seq) => copyOfRow(own.moveTo(seq)),
    cursor: () => new RingRow(parts),
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
