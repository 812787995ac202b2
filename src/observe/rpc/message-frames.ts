// Messages of gRPC in a stream of bytes: each has five bytes before it, whether it is compressed and how long it is.
import { RpcCode, RpcError } from './rpc-status.ts';

/** Bytes before each message. */
export const prefixBytes = 5;

/** A message with its prefix. */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(prefixBytes + message.length);
  framed[0] = 0;
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, prefixBytes);
  return framed;
}

/** Takes a stream apart. */
export interface FrameReader {
  /** Gives every message that is whole now: `bytes[start..end)`. The bytes stay what they are. Throws an RpcError. */
  push(chunk: Buffer, onMessage: (bytes: Buffer, start: number, end: number) => void): void;
  /** Whether the stream ended within a message. */
  readonly unfinished: boolean;
}

/** Makes a reader. A message longer than `maxBytes` or a compressed one is refused; nothing is reserved for it before it is there. */
export function createFrameReader(maxBytes: number): FrameReader {
  /** Of a message that is not whole yet, with its prefix. */
  let parts: Buffer[] = [];
  let held = 0;

  function lengthAt(bytes: Buffer, at: number): number {
    if (bytes[at] !== 0) throw new RpcError(RpcCode.unimplemented, 'compressed messages are not taken');
    const length = bytes.readUInt32BE(at + 1);
    if (length > maxBytes)
      throw new RpcError(RpcCode.resourceExhausted, `a message of ${length} bytes is longer than ${maxBytes}`);
    return length;
  }

  /** Adds to what is held until it has `wanted` bytes; how many were taken. */
  function hold(chunk: Buffer, at: number, wanted: number): number {
    const taken = Math.min(wanted - held, chunk.length - at);
    if (taken > 0) parts.push(chunk.subarray(at, at + taken));
    held += Math.max(0, taken);
    return Math.max(0, taken);
  }

  return {
    get unfinished() {
      return held > 0;
    },
    push(chunk, onMessage) {
      let at = 0;
      if (held > 0) {
        at += hold(chunk, at, prefixBytes);
        if (held < prefixBytes) return;
        if (parts[0]!.length < prefixBytes) parts = [Buffer.concat(parts, held)];
        const whole = prefixBytes + lengthAt(parts[0]!, 0);
        at += hold(chunk, at, whole);
        if (held < whole) return;
        // Only the message that was cut is put together: what comes after it is read where it lies.
        const joined = Buffer.concat(parts, held);
        parts = [];
        held = 0;
        onMessage(joined, prefixBytes, whole);
      }
      while (chunk.length - at >= prefixBytes) {
        const end = at + prefixBytes + lengthAt(chunk, at);
        if (end > chunk.length) break;
        onMessage(chunk, at + prefixBytes, end);
        at = end;
      }
      hold(chunk, at, Number.POSITIVE_INFINITY);
    },
  };
}
