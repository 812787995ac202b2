// A response of the observer as a gatherer reads it: what it is and when, and nothing of the flow in it. Decoding flows
// would cost twenty times as much as handing them on.

/** What a response has: a flow (or an event of the agent or of a process), a state, or a loss. */
export const ResponseKind = { item: 1, nodeStatus: 2, lost: 3 } as const;

/** How the responses of a method are laid out. */
export interface ResponseShape {
  /** The number of the field that says when. */
  readonly time: number;
  /** A ResponseKind by the number of the field that says what it has. */
  readonly kinds: readonly number[];
}

/** Of flows, and of what agents did. */
export const flowShape: ResponseShape = {
  time: 1001,
  kinds: [0, ResponseKind.item, ResponseKind.nodeStatus, ResponseKind.lost],
};
/** Of what processes did. */
export const processShape: ResponseShape = {
  time: 5,
  kinds: [0, ResponseKind.item, ResponseKind.item, ResponseKind.lost, 0, 0, ResponseKind.nodeStatus],
};

/** What the last call of `readResponse` found. One for all: this is done for every flow. */
export const view = {
  /** A ResponseKind; 0 when it has none. */
  kind: 0,
  /** Microseconds since the epoch, with quarters; NaN when it has none. */
  timeUs: Number.NaN,
  /** The same time, exactly. */
  seconds: 0,
  nanos: 0,
};

let at = 0;

/** Reads the response at `bytes[start..end)` into `view`. What is broken has no time. */
export function readResponse(bytes: Uint8Array, start: number, end: number, shape: ResponseShape): void {
  view.kind = 0;
  view.timeUs = Number.NaN;
  at = start;
  while (at < end) {
    const tag = varint(bytes, end);
    const field = tag >>> 3;
    if ((tag & 7) !== 2) {
      if (!skip(bytes, tag & 7, end)) return;
      continue;
    }
    const length = varint(bytes, end);
    const next = at + length;
    if (next > end) return;
    if (field === shape.time) view.timeUs = readTime(bytes, next);
    else if (field < shape.kinds.length) view.kind = shape.kinds[field] || view.kind;
    at = next;
  }
}

/** A Timestamp: seconds and nanoseconds. */
function readTime(bytes: Uint8Array, end: number): number {
  let seconds = 0;
  let nanos = 0;
  while (at < end) {
    const tag = varint(bytes, end);
    if (tag === 8) seconds = varint(bytes, end);
    else if (tag === 16) nanos = varint(bytes, end);
    else if (!skip(bytes, tag & 7, end)) return Number.NaN;
  }
  view.seconds = seconds;
  view.nanos = nanos;
  return seconds * 1e6 + nanos / 1000;
}

/** A number of at most 53 bits; one that is longer is read to its end and is wrong. */
function varint(bytes: Uint8Array, end: number): number {
  let value = 0;
  let scale = 1;
  while (at < end) {
    const byte = bytes[at++]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
    scale *= 128;
  }
  return value;
}

function skip(bytes: Uint8Array, wireType: number, end: number): boolean {
  if (wireType === 0) varint(bytes, end);
  else if (wireType === 1) at += 8;
  else if (wireType === 5) at += 4;
  else return false;
  return true;
}
