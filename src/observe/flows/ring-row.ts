// A row of the ring read where it lies: a filter that looks at two fields costs two fields, and whoever reads flow after
// flow makes no garbage.
import { EVENT_SIZE, EventFlags, EventOffset, EventType, PROCESS_REF_SIZE } from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { FlowDns, FlowEnd, FlowRow, FlowRules, FlowService, FlowTcp } from './flow-row.ts';
import { shownTcpFlags } from './tcp-flags.ts';

/** Where the ring keeps what the datapath's event has no field for, and what takes the place of fields that were read. */
export const RowOffset = {
  /** In place of the time: since the epoch. */
  seconds: EventOffset.timeNs,
  nanos: EventOffset.timeNs + 4,
  /** In place of the time of the connection's start; a double. */
  durationNs: EventOffset.createdNs,
  /** In place of the processes, which are references beside the row: four numbers, and whether there are any. */
  tcp: EventOffset.who,
  hasTcp: EventOffset.who + 16,
  direction: EVENT_SIZE - 1,
  swapped: EVENT_SIZE - 2,
} as const;

if (EventOffset.icmpCode >= RowOffset.swapped)
  throw new Error('struct event has no room left for the ring’s own fields');
if (2 * PROCESS_REF_SIZE < 20) throw new Error('struct event has no room left for what TCP measured');

/** What a ring keeps of its rows, by their place in it. */
export interface RowParts {
  readonly capacity: number;
  readonly view: DataView;
  readonly originators: readonly (FlowEnd | undefined)[];
  readonly responders: readonly (FlowEnd | undefined)[];
  readonly services: readonly (FlowService | undefined)[];
  readonly originatorProcesses: readonly (ProcessRow | undefined)[];
  readonly responderProcesses: readonly (ProcessRow | undefined)[];
  egressRules(slot: number): FlowRules | undefined;
  ingressRules(slot: number): FlowRules | undefined;
  readonly names: readonly (readonly string[] | undefined)[];
  /** What few flows have, by the number of the row. */
  readonly dns: ReadonlyMap<number, FlowDns>;
  readonly forged: ReadonlyMap<number, string>;
}

const noNames: readonly string[] = [];

/** A row of a ring, after `moveTo`; what it says is valid until the next one. */
export class RingRow implements FlowRow {
  seq = -1;
  readonly #parts: RowParts;
  readonly #view: DataView;
  #slot = 0;
  #at = 0;

  constructor(parts: RowParts) {
    this.#parts = parts;
    this.#view = parts.view;
  }

  moveTo(seq: number): this {
    this.seq = seq;
    this.#slot = seq % this.#parts.capacity;
    this.#at = this.#slot * EVENT_SIZE;
    return this;
  }

  #u8(field: number): number {
    return this.#view.getUint8(this.#at + field);
  }
  #u32(field: number): number {
    return this.#view.getUint32(this.#at + field, true);
  }
  #u64(field: number): number {
    return this.#u32(field) + this.#u32(field + 4) * 2 ** 32;
  }
  #port(field: number): number {
    return this.#view.getUint16(this.#at + field, false);
  }

  get seconds(): number {
    return this.#u32(RowOffset.seconds);
  }
  get nanos(): number {
    return this.#u32(RowOffset.nanos);
  }
  get type(): number {
    return this.#u8(EventOffset.type);
  }
  get direction(): number {
    return this.#u8(RowOffset.direction);
  }
  get protocol(): number {
    return this.#u8(EventOffset.protocol);
  }
  get ipv6(): boolean {
    return (this.flags & EventFlags.EVENT_IPV6) !== 0;
  }
  get reply(): boolean {
    return this.#u8(RowOffset.swapped) === 1;
  }
  get source(): FlowEnd {
    return (this.reply ? this.#parts.responders : this.#parts.originators)[this.#slot]!;
  }
  get destination(): FlowEnd {
    return (this.reply ? this.#parts.originators : this.#parts.responders)[this.#slot]!;
  }
  get sourceService(): FlowService | undefined {
    return this.reply ? this.#parts.services[this.#slot] : undefined;
  }
  get destinationService(): FlowService | undefined {
    return this.reply ? undefined : this.#parts.services[this.#slot];
  }
  get sourceAddress(): string {
    const { forged } = this.#parts;
    return (forged.size > 0 ? forged.get(this.seq) : undefined) ?? this.source.address;
  }
  get sourcePort(): number {
    return this.#port(this.reply ? EventOffset.dport : EventOffset.sport);
  }
  get destinationPort(): number {
    return this.#port(this.reply ? EventOffset.sport : EventOffset.dport);
  }
  get tcpFlags(): number {
    const sent = this.#u8(EventOffset.tcpFlags);
    return shownTcpFlags(this.type, this.#u8(EventOffset.reason), sent, this.#u8(EventOffset.tcpFlags + 1));
  }
  get ifindex(): number {
    return this.#u32(EventOffset.ifindex);
  }
  get icmpType(): number {
    return this.#u8(EventOffset.icmpType);
  }
  get icmpCode(): number {
    return this.#u8(EventOffset.icmpCode);
  }
  get reason(): number {
    const { type } = this;
    return type === EventType.EVENT_DROP || type === EventType.EVENT_END ? this.#u8(EventOffset.reason) : 0;
  }
  get flags(): number {
    return this.#u8(EventOffset.flags);
  }
  get bytes(): readonly [number, number] {
    return [this.#u64(EventOffset.bytes), this.#u64(EventOffset.bytes + 8)];
  }
  get packets(): readonly [number, number] {
    return [this.#u64(EventOffset.packets), this.#u64(EventOffset.packets + 8)];
  }
  get durationNs(): number {
    return this.#view.getFloat64(this.#at + RowOffset.durationNs, true);
  }
  get suppressed(): number {
    return this.#u32(EventOffset.suppressed);
  }
  get egressRules(): FlowRules | undefined {
    return this.#parts.egressRules(this.#slot);
  }
  get ingressRules(): FlowRules | undefined {
    return this.#parts.ingressRules(this.#slot);
  }
  get sourceProcess(): ProcessRow | undefined {
    return (this.reply ? this.#parts.responderProcesses : this.#parts.originatorProcesses)[this.#slot];
  }
  get destinationProcess(): ProcessRow | undefined {
    return (this.reply ? this.#parts.originatorProcesses : this.#parts.responderProcesses)[this.#slot];
  }
  get sourceNames(): readonly string[] {
    return this.reply ? this.#names() : noNames;
  }
  get destinationNames(): readonly string[] {
    return this.reply ? noNames : this.#names();
  }
  get closedBy(): number {
    return this.type === EventType.EVENT_END ? this.#u8(EventOffset.direction) : 0;
  }
  get tcp(): FlowTcp | undefined {
    if (this.#u32(RowOffset.hasTcp) === 0) return undefined;
    const word = (i: number) => this.#u32(RowOffset.tcp + i * 4);
    return { handshakeUs: word(0), rttUs: word(1), minRttUs: word(2), retransmits: word(3) };
  }
  get dns(): FlowDns | undefined {
    const { dns } = this.#parts;
    return dns.size > 0 ? dns.get(this.seq) : undefined;
  }

  #names(): readonly string[] {
    return this.#parts.names[this.#slot] ?? noNames;
  }
}

/** A row that stays what it is. */
export function copyOfRow(row: FlowRow): FlowRow {
  return {
    seq: row.seq,
    seconds: row.seconds,
    nanos: row.nanos,
    type: row.type,
    direction: row.direction,
    protocol: row.protocol,
    ipv6: row.ipv6,
    reply: row.reply,
    source: row.source,
    destination: row.destination,
    sourceService: row.sourceService,
    destinationService: row.destinationService,
    sourceAddress: row.sourceAddress,
    sourcePort: row.sourcePort,
    destinationPort: row.destinationPort,
    tcpFlags: row.tcpFlags,
    ifindex: row.ifindex,
    icmpType: row.icmpType,
    icmpCode: row.icmpCode,
    reason: row.reason,
    flags: row.flags,
    bytes: row.bytes,
    packets: row.packets,
    durationNs: row.durationNs,
    suppressed: row.suppressed,
    egressRules: row.egressRules,
    ingressRules: row.ingressRules,
    sourceProcess: row.sourceProcess,
    destinationProcess: row.destinationProcess,
    sourceNames: row.sourceNames,
    destinationNames: row.destinationNames,
    closedBy: row.closedBy,
    tcp: row.tcp,
    dns: row.dns,
  };
}
