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
  let parts: Buffer[] = [];
  let held = 0;
  /** Of the message that is not whole yet, with its prefix; unknown before the prefix is whole. */
  let needed = prefixBytes;

  function lengthAt(bytes: Buffer, at: number): number {
    if (bytes[at] !== 0) throw new RpcError(RpcCode.unimplemented, 'compressed messages are not taken');
    const length = bytes.readUInt32BE(at + 1);
    if (length > maxBytes)
      throw new RpcError(RpcCode.resourceExhausted, `a message of ${length} bytes is longer than ${maxBytes}`);
    return length;
  }

  return {
    get unfinished() {
      return held > 0;
    },
    push(chunk, onMessage) {
      let bytes = chunk;
      if (held > 0) {
        parts.push(chunk);
        held += chunk.length;
        if (held < needed) return;
        bytes = Buffer.concat(parts, held);
        parts = [];
        held = 0;
      }
      let at = 0;
      needed = prefixBytes;
      while (bytes.length - at >= prefixBytes) {
        const end = at + prefixBytes + lengthAt(bytes, at);
        if (end > bytes.length) {
          needed = end - at;
          break;
        }
        onMessage(bytes, at + prefixBytes, end);
        at = end;
      }
      if (at === bytes.length) return;
      parts = [at === 0 ? bytes : bytes.subarray(at)];
      held = bytes.length - at;
    },
  };
}
