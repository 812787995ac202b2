// Field masks: keeps of an encoded message only what a client asked for.
import type { DescMessage } from '@bufbuild/protobuf';
import { wireTypes } from './wire-writer.ts';

/** What of a message was asked for. */
export interface FieldMask {
  /** Gives a message without what the mask does not name. */
  readonly masking: (message: Uint8Array) => Uint8Array;
  /** The message's own fields that it names, or something in them: the others need not be made. */
  readonly fields: ReadonlySet<number>;
  /** They are wanted as they are: a message that has no others needs no masking. */
  readonly whole: boolean;
}

/** What is kept, by the field's number: all of it, or of the message in it what its own tree says. */
type Tree = Map<number, Tree | true>;

/** Compiles a mask of paths such as `source.pod_name`; answers with the path that the message does not have. */
export function compileFieldMask(schema: DescMessage, paths: readonly string[]): FieldMask | { unknown: string } {
  const root: Tree = new Map();
  for (const path of paths) {
    let tree = root;
    let desc: DescMessage | undefined = schema;
    const names = path.split('.');
    for (const [i, name] of names.entries()) {
      const field: DescMessage['fields'][number] | undefined = desc?.fields.find((each) => each.name === name);
      if (field === undefined) return { unknown: path };
      desc = field.message;
      const below = tree.get(field.number);
      if (below === true) break;
      if (i === names.length - 1) tree.set(field.number, true);
      else {
        const next = below ?? (new Map() as Tree);
        tree.set(field.number, next);
        tree = next;
      }
    }
  }
  return {
    fields: new Set(root.keys()),
    whole: [...root.values()].every((each) => each === true),
    masking(message) {
      const kept = new Uint8Array(message.length);
      return kept.subarray(0, copyKept(message, 0, message.length, root, kept, 0));
    },
  };
}

/** Copies the kept fields of the message at `from[start..end)` to `to[at..]`; where they end there. */
function copyKept(from: Uint8Array, start: number, end: number, tree: Tree, to: Uint8Array, at: number): number {
  let written = at;
  for (let next = start; next < end; ) {
    const begin = next;
    const afterTag = afterVarint(from, begin);
    const tag = varintAt(from, begin);
    const content = contentOf(from, afterTag, tag & 7);
    next = content.end;
    const kept = tree.get(tag >>> 3);
    if (kept === undefined) continue;
    if (kept === true || (tag & 7) !== wireTypes.bytes) {
      for (let i = begin; i < next; i++) to[written++] = from[i]!;
      continue;
    }
    for (let i = begin; i < afterTag; i++) to[written++] = from[i]!;
    // The message is written where it would stand with a length of one byte, and moved when that is not enough.
    const inner = copyKept(from, content.start, content.end, kept, to, written + 1);
    const length = inner - written - 1;
    const more = varintBytes(length) - 1;
    if (more > 0) to.copyWithin(written + 1 + more, written + 1, inner);
    for (let rest = length, i = written; ; rest >>>= 7, i++) {
      to[i] = rest > 0x7f ? (rest & 0x7f) | 0x80 : rest;
      if (rest <= 0x7f) break;
    }
    written = inner + more;
  }
  return written;
}

function contentOf(from: Uint8Array, at: number, wireType: number): { start: number; end: number } {
  switch (wireType) {
    case wireTypes.varint:
      return { start: at, end: afterVarint(from, at) };
    case wireTypes.fixed64:
      return { start: at, end: at + 8 };
    case wireTypes.fixed32:
      return { start: at, end: at + 4 };
    default: {
      const start = afterVarint(from, at);
      return { start, end: start + varintAt(from, at) };
    }
  }
}

/** Tags and lengths only: they have at most 32 bits. */
function varintAt(from: Uint8Array, at: number): number {
  let value = 0;
  for (let i = at, shift = 0; ; i++, shift += 7) {
    value |= (from[i]! & 0x7f) << shift;
    if (from[i]! < 0x80) return value >>> 0;
  }
}

function afterVarint(from: Uint8Array, at: number): number {
  let next = at;
  while (from[next]! >= 0x80) next++;
  return next + 1;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}
