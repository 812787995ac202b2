// What the contract has no field for, as a google.protobuf.Struct in an Any: any client can read it, and print it.
import { EventType } from '../../kernel/datapath.gen.ts';
import type { FlowRow } from './flow-row.ts';
import { endCauseText, stagedDenials } from './flow-summary.ts';
import type { WireWriter } from './wire-writer.ts';

type Value = string | number | readonly string[];

const typeUrl = 'type.googleapis.com/google.protobuf.Struct';

/** Writes the flow's extensions; nothing where there are none. */
export function writeExtensions(out: WireWriter, field: number, row: FlowRow): void {
  const isEnd = row.type === EventType.EVENT_END;
  const isReport = isEnd || row.type === EventType.EVENT_ACTIVE;
  const staged = stagedDenials(row.flags);
  if (!isReport && staged.length === 0 && row.suppressed === 0) return;
  const any = out.open(field);
  out.text(1, typeUrl);
  const struct = out.open(2);
  if (isReport) {
    writeEntry(out, 'report', isEnd ? 'end' : 'active');
    if (isEnd) writeEntry(out, 'end_cause', endCauseText[row.reason] ?? 'unknown');
    writeEntry(out, 'packets_sent', row.packets[0]);
    writeEntry(out, 'bytes_sent', row.bytes[0]);
    writeEntry(out, 'packets_received', row.packets[1]);
    writeEntry(out, 'bytes_received', row.bytes[1]);
    writeEntry(out, 'duration_ms', Math.round(row.durationNs / 1e6));
  }
  if (staged.length > 0) writeEntry(out, 'staged_denied', staged);
  if (row.suppressed > 0) writeEntry(out, 'reports_held_back', row.suppressed);
  out.close(struct);
  out.close(any);
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
  if (typeof value === 'string') out.text(3, value);
  else if (typeof value === 'number') out.double(2, value);
  else {
    const list = out.open(6);
    for (const each of value) writeValue(out, 1, each);
    out.close(list);
  }
  out.close(message);
}
