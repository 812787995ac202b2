// Lays out protobuf by hand, for the one message that is made a hundred thousand times a second. Fields that have their
// default are left out, as the format wants; messages made once are made by the generated code.

/** Writes fields one after another. Numbers are whole, from 0 to 2^53. */
export interface WireWriter {
  uint(field: number, value: number): void;
  text(field: number, value: string): void;
  /** Written also when it is 0: it is only used where being there says something. */
  double(field: number, value: number): void;
  /** The number of such a field whose tag was written before. */
  float64(value: number): void;
  /** A text or message that is already encoded. */
  bytes(field: number, value: Uint8Array): void;
  /** Fields that are already encoded. */
  raw(value: Uint8Array): void;
  /** Begins a message in this one; what it answers is for `close`. One of 128 to 16 383 bytes is best called `long`. */
  open(field: number, long?: boolean): number;
  close(mark: number): void;
  /** Begins a message in its frame, as gRPC has messages in a stream: what it answers is for `closeFrame`. */
  openFrame(): number;
  closeFrame(mark: number): void;
  /** Bytes written so far. */
  readonly length: number;
  /** A copy of all that was written; the next message begins. */
  take(): Uint8Array;
  /** A copy of what was written since `length` was `start`; it is as if that had not been. */
  takeFrom(start: number): Uint8Array;
}

/** Wire types of the format. */
export const wireTypes = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/** Before a message: whether it is compressed, and how long it is. */
const prefixBytes = 5;
const startBytes = 4096;
const textEncoder = new TextEncoder();

/** Makes a writer; it is used again for every message. */
export function createWireWriter(): WireWriter {
  let data = new Uint8Array(startBytes);
  let view = new DataView(data.buffer);
  let at = 0;

  function room(bytes: number): void {
    if (at + bytes <= data.length) return;
    const larger = new Uint8Array(2 * (at + bytes));
    larger.set(data.subarray(0, at));
    data = larger;
    view = new DataView(data.buffer);
  }
  function varint(value: number): void {
    let rest = value;
    while (rest > 0x7f) {
      // Not by bits: numbers may be larger than 32 of them.
      data[at++] = (rest % 0x80) | 0x80;
      rest = rest > 0x7fff_ffff ? Math.floor(rest / 0x80) : rest >>> 7;
    }
    data[at++] = rest;
  }
  function raw(value: Uint8Array): void {
    const { length } = value;
    room(length);
    if (length > 24) data.set(value, at);
    else for (let i = 0; i < length; i++) data[at + i] = value[i]!;
    at += length;
  }
  function bytes(field: number, value: Uint8Array): void {
    room(10);
    varint((field << 3) | wireTypes.bytes);
    varint(value.length);
    raw(value);
  }

  function float64(value: number): void {
    room(8);
    view.setFloat64(at, value, true);
    at += 8;
  }
  function takeFrom(start: number): Uint8Array {
    // A piece of Node's pool: cheaper than a buffer of its own.
    const copy = Buffer.allocUnsafe(at - start);
    copy.set(data.subarray(start, at));
    at = start;
    return copy;
  }

  return {
    raw,
    bytes,
    uint(field, value) {
      if (value === 0) return;
      room(13);
      varint(field << 3);
      varint(value);
    },
    text(field, value) {
      const { length } = value;
      if (length === 0) return;
      room(10 + length);
      const start = at;
      varint((field << 3) | wireTypes.bytes);
      varint(length);
      for (let i = 0; i < length; i++) {
        const code = value.charCodeAt(i);
        if (code > 0x7f) {
          at = start;
          bytes(field, textEncoder.encode(value));
          return;
        }
        data[at++] = code;
      }
    },
    double(field, value) {
      room(5);
      varint((field << 3) | wireTypes.fixed64);
      float64(value);
    },
    float64,
    open(field, long = false) {
      room(6);
      varint((field << 3) | wireTypes.bytes);
      const mark = at;
      at += long ? 2 : 1;
      return long ? -mark : mark;
    },
    close(place) {
      const long = place < 0;
      const mark = long ? -place : place;
      const reserved = long ? 2 : 1;
      const length = at - mark - reserved;
      let needed = 1;
      for (let rest = length >>> 7; rest > 0; rest >>>= 7) needed++;
      if (needed !== reserved) {
        room(needed);
        data.copyWithin(mark + needed, mark + reserved, at);
      }
      at = mark;
      varint(length);
      at += length;
    },
    openFrame() {
      room(prefixBytes);
      at += prefixBytes;
      return at;
    },
    closeFrame(mark) {
      data[mark - prefixBytes] = 0;
      view.setUint32(mark - prefixBytes + 1, at - mark);
    },
    get length() {
      return at;
    },
    take: () => takeFrom(0),
    takeFrom,
  };
}
