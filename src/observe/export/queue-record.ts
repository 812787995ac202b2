// An event as a queue keeps it on disk. Little endian: bytes after these eight, CRC-32 of them, number of the event (8),
// time in ms (8), lengths of id, key and kind (2 each), then these three and the body, as UTF-8. Where the highest bit of the
// kind's length is set, how many events it tells of (8) comes before them.
import { crc32 } from 'node:zlib';

/** What waits to be sent. */
export interface QueuedEvent {
  /** Counts the events of a queue from 1, without gaps: a gap is what was lost. */
  readonly seq: number;
  /**
   * Events that this one says were lost. So many numbers after its own are nobody's: where it is lost itself, what it had to tell
   * of is in the gap.
   */
  readonly tellsOf?: number;
  readonly timeMs: number;
  /** Another event has another one; the same event has the same again. */
  readonly id: string;
  /** Events of one key keep their order where the receiver has several lanes. */
  readonly key: string;
  readonly kind: string;
  /** What is sent, in the exporter's format. */
  readonly body: string;
}

const headBytes = 8;
const fixedBytes = 22;
const tellsOfBytes = 8;
const tellsOfBit = 0x8000;
/** A length above this is a broken file, not an event. */
const maxRecordBytes = 4 * 1024 * 1024;

/** The bytes of a record; undefined when it is larger than any record may be. */
export function encodeRecord(event: QueuedEvent): Buffer | undefined {
  const { id, key, kind, body, tellsOf = 0 } = event;
  const [idBytes, keyBytes, kindBytes] = [Buffer.byteLength(id), Buffer.byteLength(key), Buffer.byteLength(kind)];
  if (Math.max(idBytes, keyBytes) > 0xffff || kindBytes >= tellsOfBit) return undefined;
  const headEnd = headBytes + fixedBytes + (tellsOf > 0 ? tellsOfBytes : 0);
  const length = headEnd - headBytes + idBytes + keyBytes + kindBytes + Buffer.byteLength(body);
  if (length > maxRecordBytes) return undefined;
  const record = Buffer.allocUnsafe(headBytes + length);
  record.writeUInt32LE(length, 0);
  record.writeDoubleLE(event.seq, 8);
  record.writeDoubleLE(event.timeMs, 16);
  record.writeUInt16LE(idBytes, 24);
  record.writeUInt16LE(keyBytes, 26);
  record.writeUInt16LE(kindBytes | (tellsOf > 0 ? tellsOfBit : 0), 28);
  if (tellsOf > 0) record.writeDoubleLE(tellsOf, headBytes + fixedBytes);
  let at = headEnd;
  for (const text of [id, key, kind, body]) at += record.write(text, at, 'utf8');
  record.writeUInt32LE(crc32(record.subarray(headBytes)), 4);
  return record;
}

/** The record at `at`: `short` when it goes on behind the bytes, `broken` when it is none. */
export function decodeRecord(
  bytes: Buffer,
  at: number,
): { readonly event: QueuedEvent; readonly end: number } | { readonly need: number } | 'broken' {
  if (bytes.length - at < headBytes) return { need: headBytes };
  const length = bytes.readUInt32LE(at);
  if (length < fixedBytes || length > maxRecordBytes) return 'broken';
  const end = at + headBytes + length;
  if (end > bytes.length) return { need: headBytes + length };
  if (crc32(bytes.subarray(at + headBytes, end)) !== bytes.readUInt32LE(at + 4)) return 'broken';
  const kindLength = bytes.readUInt16LE(at + 28);
  const more = (kindLength & tellsOfBit) !== 0 ? tellsOfBytes : 0;
  let next = at + headBytes + fixedBytes + more;
  const take = (lengthBytes: number) => {
    next += lengthBytes;
    return bytes.toString('utf8', next - lengthBytes, next);
  };
  const lengths = [bytes.readUInt16LE(at + 24), bytes.readUInt16LE(at + 26), kindLength & ~tellsOfBit] as const;
  if (fixedBytes + more + lengths[0] + lengths[1] + lengths[2] > length) return 'broken';
  return {
    event: {
      ...(more > 0 && { tellsOf: bytes.readDoubleLE(at + headBytes + fixedBytes) }),
      seq: bytes.readDoubleLE(at + 8),
      timeMs: bytes.readDoubleLE(at + 16),
      id: take(lengths[0]),
      key: take(lengths[1]),
      kind: take(lengths[2]),
      body: bytes.toString('utf8', next, end),
    },
    end,
  };
}
