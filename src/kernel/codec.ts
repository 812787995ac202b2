// What the generated codecs of datapath.gen.ts have in common. Memory is little-endian, as the kernel's is here.

/** Turns rows into the bytes of a C type and back. */
export type Codec<Row> = {
  /** Bytes of the C type, padding included. */
  readonly size: number;
  /** Writes a row at `offset`; padding is zeroed. */
  encodeInto(view: DataView, offset: number, row: Row): void;
  /** A row as fresh bytes. */
  encode(row: Row): Uint8Array<ArrayBuffer>;
  /** Reads a row; byte arrays are copies. */
  decode(bytes: Uint8Array, offset?: number): Row;
  /** Reads a row through a view that is there already. */
  decodeFrom(view: DataView, offset: number): Row;
};

/** A map of the datapath: its C name, its defaults, and how its keys and values are read. */
export type MapSpec<Key, Value> = {
  readonly name: string;
  readonly type: number;
  readonly maxEntries: number;
  readonly flags: number;
  readonly perCpu: boolean;
  readonly key: Codec<Key>;
  readonly value: Codec<Value>;
};

/** Completes a codec from its two primitive operations. */
export function makeCodec<Row>(
  size: number,
  encodeInto: (view: DataView, offset: number, row: Row) => void,
  decodeFrom: (view: DataView, offset: number) => Row,
): Codec<Row> {
  return {
    size,
    encodeInto,
    decodeFrom,
    encode(row) {
      const bytes = new Uint8Array(size);
      encodeInto(new DataView(bytes.buffer), 0, row);
      return bytes;
    },
    decode(bytes, offset = 0) {
      return decodeFrom(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset);
    },
  };
}

export const u8Codec: Codec<number> = makeCodec(
  1,
  (view, offset, value) => view.setUint8(offset, value),
  (view, offset) => view.getUint8(offset),
);

export const u16Codec: Codec<number> = makeCodec(
  2,
  (view, offset, value) => view.setUint16(offset, value, true),
  (view, offset) => view.getUint16(offset, true),
);

export const u32Codec: Codec<number> = makeCodec(
  4,
  (view, offset, value) => view.setUint32(offset, value, true),
  (view, offset) => view.getUint32(offset, true),
);

export const u64Codec: Codec<bigint> = makeCodec(
  8,
  (view, offset, value) => view.setBigUint64(offset, value, true),
  (view, offset) => view.getBigUint64(offset, true),
);

/** Copies a byte array field out of a view. */
export function readBytes(view: DataView, offset: number, lenBytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset + offset, lenBytes).slice() as Uint8Array<ArrayBuffer>;
}

/** Copies a byte array field into a view; its length must be exact. */
export function writeBytes(view: DataView, offset: number, lenBytes: number, bytes: Uint8Array, field: string): void {
  if (bytes.length !== lenBytes) throw new RangeError(`${field} has ${bytes.length} bytes instead of ${lenBytes}`);
  new Uint8Array(view.buffer, view.byteOffset + offset, lenBytes).set(bytes);
}

/** Reads a C string field. */
export function readText(view: DataView, offset: number, lenBytes: number): string {
  const bytes = readBytes(view, offset, lenBytes);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Writes a C string field, cut so that its end stays zero. */
export function writeText(view: DataView, offset: number, lenBytes: number, text: string): void {
  const field = new Uint8Array(view.buffer, view.byteOffset + offset, lenBytes).fill(0);
  field.set(new TextEncoder().encode(text).subarray(0, lenBytes - 1));
}
