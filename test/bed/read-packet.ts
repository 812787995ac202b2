// Reads frames back: who sent what to whom, and whether the checksums hold. For tests of translation.
import { formatAddress } from '../../src/core/ip.ts';

/** A frame in short. */
export interface SeenPacket {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly protocol: number;
  /** Of IPv4 options or the first IPv6 destination options header. */
  readonly options: Uint8Array;
  readonly ttl: number;
  readonly id: number;
  readonly body: Uint8Array;
}

/** Reads the frame's IP packet, or the one at `offset`. */
export function readPacket(frame: Uint8Array, offset = 14): SeenPacket {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame[offset]! >> 4 === 6) {
    let next = frame[offset + 6]!;
    let at = offset + 40;
    let options: Uint8Array = new Uint8Array(0);
    if (next === 60) {
      const length = (frame[at + 1]! + 1) * 8;
      options = frame.slice(at, at + length);
      next = frame[at]!;
      at += length;
    }
    return {
      source: formatAddress({ family: 6, bytes: frame.slice(offset + 8, offset + 24) }),
      destination: formatAddress({ family: 6, bytes: frame.slice(offset + 24, offset + 40) }),
      sourcePort: view.getUint16(at),
      destinationPort: view.getUint16(at + 2),
      protocol: next,
      options,
      ttl: frame[offset + 7]!,
      id: view.getUint32(offset) & 0xfffff,
      body: frame.slice(at, offset + 40 + view.getUint16(offset + 4)),
    };
  }
  const headerLength = (frame[offset]! & 15) * 4;
  const at = offset + headerLength;
  return {
    source: formatAddress({ family: 4, bytes: frame.slice(offset + 12, offset + 16) }),
    destination: formatAddress({ family: 4, bytes: frame.slice(offset + 16, offset + 20) }),
    sourcePort: view.getUint16(at),
    destinationPort: view.getUint16(at + 2),
    protocol: frame[offset + 9]!,
    options: frame.slice(offset + 20, at),
    ttl: frame[offset + 8]!,
    id: view.getUint16(offset + 4),
    body: frame.slice(at, offset + view.getUint16(offset + 2)),
  };
}

function sum(bytes: Uint8Array, start = 0): number {
  let total = start;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

const checksumAt: Record<number, number> = { 6: 16, 17: 6, 58: 2, 1: 2 };

/** SCTP's checksum of a packet whose own is zero: bit by bit, as RFC 9260 appendix A has it. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** The same, over a body that has one already. */
function sctpChecksum(body: Uint8Array): number {
  const blank = Uint8Array.from(body);
  blank.fill(0, 8, 12);
  return crc32c(blank);
}

function pseudoSum(frame: Uint8Array, seen: SeenPacket): number {
  const six = frame[14]! >> 4 === 6;
  if (seen.protocol === 1) return 0;
  const addresses = six ? frame.slice(22, 54) : frame.slice(26, 34);
  return sum(addresses, seen.body.length + seen.protocol);
}

/** A copy of a frame with its transport checksum filled in. */
export function withChecksum(frame: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(frame);
  const seen = readPacket(copy);
  const at = checksumAt[seen.protocol];
  const offset = copy.length - seen.body.length;
  const view = new DataView(copy.buffer);
  if (seen.protocol === 132) view.setUint32(offset + 8, sctpChecksum(seen.body), true);
  if (at === undefined) return copy;
  view.setUint16(offset + at, 0);
  view.setUint16(offset + at, ~sum(copy.slice(offset), pseudoSum(copy, seen)) & 0xffff);
  return copy;
}

/** Whether the IPv4 header's and the transport's checksums hold. */
export function checksumsHold(frame: Uint8Array): boolean {
  const seen = readPacket(frame);
  const six = frame[14]! >> 4 === 6;
  if (!six && sum(frame.slice(14, 14 + (frame[14]! & 15) * 4)) !== 0xffff) return false;
  if (seen.protocol === 132) {
    const { buffer, byteOffset } = seen.body;
    return new DataView(buffer, byteOffset).getUint32(8, true) === sctpChecksum(seen.body);
  }
  return checksumAt[seen.protocol] === undefined || sum(seen.body, pseudoSum(frame, seen)) === 0xffff;
}
