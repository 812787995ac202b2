// What the contract has no field for, as a google.protobuf.Struct in an Any: any client can read it, and print it.
import { ClosedBy, EventType } from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { FlowRow, FlowTcp } from './flow-row.ts';
import { endCauseOf, stagedDenials } from './flow-summary.ts';
import { createWireWriter, type WireWriter } from './wire-writer.ts';

type Value = string | number | readonly Value[] | { readonly [name: string]: Value | undefined };

const typeUrl = 'type.googleapis.com/google.protobuf.Struct';

const textEncoder = new TextEncoder();
/** Processes named on the way up. */
const maxParents = 8;

/** Writes the flow's extensions; nothing where there are none. */
export function writeExtensions(out: WireWriter, field: number, row: FlowRow): void {
  const isEnd = row.type === EventType.EVENT_END;
  const isReport = isEnd || row.type === EventType.EVENT_ACTIVE;
  const staged = stagedDenials(row.flags);
  const { sourceProcess, destinationProcess } = row;
  const hasProcess = sourceProcess !== undefined || destinationProcess !== undefined;
  if (!isReport && staged.length === 0 && row.suppressed === 0 && !hasProcess) return;
  const any = out.open(field, true);
  out.text(1, typeUrl);
  const struct = out.open(2, true);
  if (isReport) {
    out.raw(textEntry('report', isEnd ? 'end' : 'active'));
    if (isEnd) out.raw(textEntry('end_cause', endCauseOf(row)));
    const { closedBy, packets, bytes, tcp } = row;
    if (closedBy !== ClosedBy.CLOSED_BY_NOBODY)
      out.raw(textEntry('closed_by', closedBy === ClosedBy.CLOSED_BY_ORIGINATOR ? 'client' : 'server'));
    writeNumber(out, 'packets_sent', packets[0]);
    writeNumber(out, 'bytes_sent', bytes[0]);
    writeNumber(out, 'packets_received', packets[1]);
    writeNumber(out, 'bytes_received', bytes[1]);
    writeNumber(out, 'duration_ms', Math.round(row.durationNs / 1e6));
    if (tcp !== undefined) writeTcp(out, tcp);
  }
  if (staged.length > 0) writeEntry(out, 'staged_denied', staged);
  if (row.suppressed > 0) writeNumber(out, 'reports_held_back', row.suppressed);
  if (sourceProcess !== undefined) out.bytes(1, processEntry('source_process', sourceProcess));
  if (destinationProcess !== undefined) out.bytes(1, processEntry('destination_process', destinationProcess));
  out.close(struct);
  out.close(any);
}

function writeTcp(out: WireWriter, tcp: FlowTcp): void {
  if (tcp.handshakeUs > 0) writeNumber(out, 'handshake_us', tcp.handshakeUs);
  writeNumber(out, 'rtt_us', tcp.rttUs);
  writeNumber(out, 'min_rtt_us', tcp.minRttUs);
  writeNumber(out, 'retransmits', tcp.retransmits);
}

/** Members with texts of which there are few: each is encoded once. */
const textEntries = {
  report: new Map<string, Uint8Array>(),
  end_cause: new Map<string, Uint8Array>(),
  closed_by: new Map<string, Uint8Array>(),
};

function textEntry(name: keyof typeof textEntries, value: string): Uint8Array {
  const known = textEntries[name].get(value);
  if (known !== undefined) return known;
  writeEntry(part, name, value);
  const bytes = part.take();
  textEntries[name].set(value, bytes);
  return bytes;
}

const numberEntries = new Map<string, Uint8Array>();
/** Bytes of a number at the end of its member. */
const doubleBytes = 8;

/** A member with a number: all but the number is encoded once. */
function writeNumber(out: WireWriter, name: string, value: number): void {
  let before = numberEntries.get(name);
  if (before === undefined) {
    writeEntry(part, name, 1);
    before = part.take().slice(0, -doubleBytes);
    numberEntries.set(name, before);
  }
  out.raw(before);
  out.float64(value);
}

/** A process as flows show it. */
export function processValue(row: ProcessRow): { readonly [name: string]: Value | undefined } {
  const parents: string[] = [];
  for (let each = row.parent; each !== undefined && parents.length < maxParents; each = each.parent)
    parents.push(`${each.binary}[${each.pid}]`);
  return {
    exec_id: row.execId,
    pid: row.pid,
    uid: row.uid,
    binary: row.binary || undefined,
    arguments: row.arguments || undefined,
    cwd: row.cwd || undefined,
    start_time: new Date(row.startMs).toISOString(),
    parents: parents.length > 0 ? parents : undefined,
    parent_exec_id: row.parent?.execId,
    container_id: row.container?.id,
    container: row.container?.name || undefined,
    image: row.container?.image || undefined,
  };
}

const parts = { source_process: new WeakMap<ProcessRow, Uint8Array>(), destination_process: new WeakMap() };
const part = createWireWriter();

/** A process is encoded once for all its flows; again as long as its container has no name. */
function processEntry(name: keyof typeof parts, row: ProcessRow): Uint8Array {
  const known = parts[name].get(row);
  if (known !== undefined) return known;
  part.text(1, name);
  writeValue(part, 2, processValue(row));
  const bytes = part.take();
  if (row.container === undefined || row.container.name !== '') parts[name].set(row, bytes);
  return bytes;
}

/** A member of a Struct. */
function writeEntry(out: WireWriter, name: string, value: Value): void {
  const entry = out.open(1);
  out.text(1, name);
  writeValue(out, 2, value);
  out.close(entry);
}

function writeValue(out: WireWriter, field: number, value: Value): void {
  const message = out.open(field);
  // A text without characters is one nevertheless: a value has to be something.
  if (typeof value === 'string') out.bytes(3, textEncoder.encode(value));
  else if (typeof value === 'number') out.double(2, value);
  else if (Array.isArray(value)) {
    const list = out.open(6);
    for (const each of value) writeValue(out, 1, each);
    out.close(list);
  } else {
    const struct = out.open(5);
    for (const [name, each] of Object.entries(value)) if (each !== undefined) writeEntry(out, name, each as Value);
    out.close(struct);
  }
  out.close(message);
}
