// Responses as JSON, straight from their bytes: the library makes an object of each message, another one of that for JSON,
// and then text, which is ten times as dear. What is said is the same; what this does not know is left to the library.
import { createRegistry, type DescField, type DescMessage, fromBinary, ScalarType, toJson } from '@bufbuild/protobuf';
import { AnySchema, BoolValueSchema, StructSchema, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { wireTypes } from '../../../observe/flows/wire-writer.ts';

const registry = createRegistry(StructSchema);

/** Makes the writer of a message's JSON, in one line, with the names of the contract. */
export function jsonWriter(schema: DescMessage): (message: Uint8Array) => string {
  const write = writerOf(schema);
  return (message) => {
    try {
      bytes = Buffer.isBuffer(message) ? message : Buffer.from(message.buffer, message.byteOffset, message.byteLength);
      return write(0, message.length);
    } catch (error) {
      if (error !== notKnown) throw error;
      return JSON.stringify(toJson(schema, fromBinary(schema, message), { useProtoFieldName: true, registry }));
    }
  };
}

const notKnown = new Error('not known here');

/** What is read, and where: one for all, because this is done for every field of every flow. */
let bytes: Buffer = Buffer.alloc(0);
let at = 0;

/** Writes the message at `bytes[start..end)`. */
type Write = (start: number, end: number) => string;

interface Field {
  readonly place: number;
  readonly wireType: number;
  readonly list: boolean;
  readonly message: boolean;
  /** Other members of the same choice. */
  readonly others: readonly number[];
  /** The text of the value that is next; undefined for the default, which is not written. */
  read(): string | undefined;
}

const writers = new Map<string, Write>();

function writerOf(desc: DescMessage): Write {
  let writer = writers.get(desc.typeName);
  if (writer === undefined) {
    // For what refers to itself.
    writers.set(desc.typeName, (start, end) => writerOf(desc)(start, end));
    const other = desc.typeName.startsWith('google.protobuf.');
    writer = known[desc.typeName] ?? (other ? leaveIt : messageWriter(desc));
    if (repeated.has(desc.typeName)) writer = remembering(writer);
    writers.set(desc.typeName, writer);
  }
  return writer;
}

function leaveIt(): never {
  throw notKnown;
}

function messageWriter(desc: DescMessage): Write {
  const sorted = [...desc.fields].sort((a, b) => a.number - b.number);
  const names = sorted.map((field) => `${JSON.stringify(field.name)}:`);
  const lists = sorted.map((field) => field.fieldKind === 'list');
  const fields = new Map(sorted.map((field, place) => [field.number, fieldOf(field, place, sorted)]));
  return (start, end) => {
    const texts = new Array<string | undefined>(sorted.length).fill(undefined);
    for (at = start; at < end; ) {
      const tag = varint();
      const field = fields.get(tag >>> 3);
      if (field === undefined) {
        skip(tag & 7);
        continue;
      }
      const before = texts[field.place];
      // Parts of a message that come apart would be joined.
      if ((tag & 7) !== field.wireType || (field.message && !field.list && before !== undefined)) throw notKnown;
      for (const other of field.others) if (texts[other] !== undefined) throw notKnown;
      const text = field.read();
      texts[field.place] = field.list && before !== undefined ? `${before},${text}` : text;
    }
    let all = '';
    for (let place = 0; place < texts.length; place++) {
      const text = texts[place];
      if (text === undefined) continue;
      const value = lists[place] ? `[${text}]` : text;
      all += all === '' ? names[place]! + value : `,${names[place]!}${value}`;
    }
    return `{${all}}`;
  };
}

function fieldOf(field: DescField, place: number, all: readonly DescField[]): Field {
  const list = field.fieldKind === 'list';
  const others = all.flatMap((each, i) => (each !== field && each.oneof && each.oneof === field.oneof ? [i] : []));
  return { place, list, message: field.message !== undefined, others, ...readerOf(field) };
}

function readerOf(field: DescField): Pick<Field, 'wireType' | 'read'> {
  const shown = field.fieldKind === 'list' || field.oneof !== undefined || field.presence === explicitPresence;
  const unless = (isDefault: boolean, text: string) => (isDefault && !shown ? undefined : text);
  const { varint: wireType } = wireTypes;
  if (field.message !== undefined && field.fieldKind !== 'map') {
    const write = writerOf(field.message);
    return { wireType: wireTypes.bytes, read: () => inside(write) };
  }
  if (field.fieldKind === 'enum') {
    const names = new Map(field.enum.values.map(({ number, name }) => [number, JSON.stringify(name)]));
    return {
      wireType,
      read() {
        const value = varint() | 0;
        return unless(value === 0, names.get(value) ?? String(value));
      },
    };
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return {
        wireType: wireTypes.bytes,
        read() {
          const end = endOf(varint());
          const text = unless(end === at, stringText(at, end));
          at = end;
          return text;
        },
      };
    case ScalarType.BOOL:
      return { wireType, read: () => (varint() === 0 ? unless(true, 'false') : 'true') };
    case ScalarType.INT32:
    case ScalarType.UINT32: {
      const signed = field.scalar === ScalarType.INT32;
      if (field.fieldKind === 'list') break; // It would be packed.
      return {
        wireType,
        read() {
          const value = varint();
          return unless(value === 0, String(signed ? value | 0 : value));
        },
      };
    }
    case ScalarType.UINT64:
      if (field.fieldKind === 'list') break;
      return {
        wireType,
        read() {
          const low = varint();
          return unless(low === 0 && high === 0, `"${high < 2 ** 20 ? high * 2 ** 32 + low : wide(low)}"`);
        },
      };
    default:
  }
  return { wireType: -1, read: leaveIt };
}

const explicitPresence = 1;

function wide(low: number): bigint {
  return BigInt(high) * 2n ** 32n + BigInt(low);
}

/** Well-known types, which have a form of their own. */
const known: Readonly<Record<string, Write>> = {
  [TimestampSchema.typeName]: timestampText,
  [BoolValueSchema.typeName](start, end) {
    let value = false;
    for (at = start; at < end; ) {
      if (varint() !== 8) throw notKnown;
      value = varint() !== 0;
    }
    return String(value);
  },
  [AnySchema.typeName](start, end) {
    at = start;
    if (at >= end || varint() !== 0x0a) throw notKnown;
    const urlEnd = endOf(varint());
    const url = stringText(at, urlEnd);
    at = urlEnd;
    if (url !== `"type.googleapis.com/${StructSchema.typeName}"` || at >= end || varint() !== 0x12) throw notKnown;
    const struct = inside(structText);
    if (at !== end) throw notKnown;
    return `{"value":${struct},"@type":${url}}`;
  },
};
let secondsOf = -1;
let secondsText = '';

function timestampText(start: number, end: number): string {
  let [seconds, nanos] = [0, 0];
  for (at = start; at < end; ) {
    const tag = varint();
    const value = varint();
    if (high >= 2 ** 20) throw notKnown;
    if (tag === 0x08) seconds = high * 2 ** 32 + value;
    else if (tag === 0x10) nanos = value;
    else throw notKnown;
  }
  if (seconds !== secondsOf) {
    if (seconds > 253_402_300_799) throw notKnown;
    secondsOf = seconds;
    secondsText = new Date(seconds * 1000).toISOString().slice(0, 19);
  }
  if (nanos === 0) return `"${secondsText}Z"`;
  const digits = String(nanos).padStart(9, '0');
  return `"${secondsText}.${nanos % 1e6 === 0 ? digits.slice(0, 3) : nanos % 1e3 === 0 ? digits.slice(0, 6) : digits}Z"`;
}

/** google.protobuf.Struct: entries of a name and a value. */
function structText(start: number, end: number): string {
  const names: string[] = [];
  let all = '';
  for (at = start; at < end; ) {
    if (varint() !== 0x0a) throw notKnown;
    const entryEnd = endOf(varint());
    if (varint() !== 0x0a) throw notKnown;
    const nameEnd = endOf(varint());
    const name = stringText(at, nameEnd);
    at = nameEnd;
    // Objects put such names before others, and have each name once.
    if (/^"\d/.test(name) || names.includes(name) || at >= entryEnd || varint() !== 0x12) throw notKnown;
    names.push(name);
    const value = inside(valueText);
    if (at !== entryEnd) throw notKnown;
    all += `${all === '' ? '' : ','}${name}:${value}`;
  }
  return `{${all}}`;
}

/** google.protobuf.Value: one of its kinds. */
function plainValueText(start: number, end: number): string {
  at = start;
  const tag = at < end ? varint() : 0;
  let text: string;
  switch (tag) {
    case 0x11: {
      const value = bytes.readDoubleLE(at);
      if (!Number.isFinite(value)) throw notKnown;
      text = JSON.stringify(value);
      at += 8;
      break;
    }
    case 0x1a: {
      const stringEnd = endOf(varint());
      text = stringText(at, stringEnd);
      at = stringEnd;
      break;
    }
    case 0x20:
      text = String(varint() !== 0);
      break;
    case 0x2a:
      text = inside(structText);
      break;
    case 0x32:
      text = inside(listText);
      break;
    default:
      throw notKnown;
  }
  if (at !== end) throw notKnown;
  return text;
}

function listText(start: number, end: number): string {
  const texts: string[] = [];
  for (at = start; at < end; ) {
    if (varint() !== 0x0a) throw notKnown;
    texts.push(inside(valueText));
  }
  return `[${texts.join(',')}]`;
}

/** Ends, policies and processes are few, and flows many. */
const repeated = new Set(['flow.Endpoint', 'flow.Policy', 'flow.Emitter']);
const structTag = 0x2a;
const rememberedValue = remembering(plainValueText);
const valueText: Write = (start, end) => (bytes[start] === structTag ? rememberedValue : plainValueText)(start, end);

const mostRemembered = 4_096;

/** Of the same bytes the same text: to look it up costs less than to make it. */
function remembering(write: Write): Write {
  const texts = new Map<string, string>();
  return (start, end) => {
    const key = bytes.toString('latin1', start, end);
    let text = texts.get(key);
    if (text === undefined) {
      text = write(start, end);
      if (texts.size >= mostRemembered) texts.clear();
      texts.set(key, text);
    }
    return text;
  };
}

/** Writes the message that is next, after its length. */
function inside(write: Write): string {
  const end = endOf(varint());
  const text = write(at, end);
  at = end;
  return text;
}

function endOf(length: number): number {
  if (at + length > bytes.length) throw notKnown;
  return at + length;
}

/** A text as JSON has it; most need nothing but their quotes. */
function stringText(start: number, end: number): string {
  for (let i = start; i < end; i++) {
    const code = bytes[i]!;
    if (code < 0x20 || code > 0x7e || code === 0x22 || code === 0x5c)
      return JSON.stringify(bytes.toString('utf8', start, end));
  }
  return `"${bytes.toString('latin1', start, end)}"`;
}

/** Above the 32 bits that `varint` gives. */
let high = 0;

function varint(): number {
  let low = 0;
  high = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    if (at >= bytes.length) throw notKnown;
    const byte = bytes[at++]!;
    const bits = byte & 0x7f;
    if (shift < 28) low |= bits << shift;
    else if (shift === 28) {
      low |= bits << 28;
      high = bits >>> 4;
    } else high |= bits << (shift - 32);
    if (byte < 0x80) {
      high >>>= 0;
      return low >>> 0;
    }
  }
  throw notKnown;
}

function skip(wireType: number): void {
  if (wireType === wireTypes.varint) varint();
  else if (wireType === wireTypes.fixed64) at += 8;
  else if (wireType === wireTypes.fixed32) at += 4;
  else if (wireType === wireTypes.bytes) at = endOf(varint());
  else throw notKnown;
}
