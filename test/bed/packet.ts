// Builds packets that read as a sentence: tcpPacket({ from: pod, to: other, destinationPort: 80, flags: ['SYN'] }).
import { parseAddress } from '../../src/core/ip.ts';
import { macBytes } from '../../src/kernel/links.ts';

/** Whoever has addresses. */
export interface PacketEnd {
  readonly ipv4: string;
  readonly ipv6: string;
}

/** What every packet has. */
export interface PacketSpec {
  readonly from: PacketEnd;
  readonly to: PacketEnd;
  readonly six?: boolean;
  readonly sourceMac?: string;
  readonly destinationMac?: string;
  readonly ttl?: number;
  /** IPv4: in the header. IPv6: makes a fragment header. `offset` in bytes, a multiple of 8. */
  readonly fragment?: { readonly id: number; readonly offset: number; readonly more: boolean };
  /** Raw IPv6 extension headers before the transport header: type and body after the two first bytes. */
  readonly extensions?: readonly { readonly type: number; readonly body?: Uint8Array }[];
  /** IPv4 options, a multiple of 4 bytes. */
  readonly options?: Uint8Array;
}

/** Ports of TCP, UDP and SCTP. */
export interface PortSpec {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload?: Uint8Array;
}

export type TcpFlag = 'FIN' | 'SYN' | 'RST' | 'PSH' | 'ACK';
const tcpFlagBits: Record<TcpFlag, number> = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 };
const none = new Uint8Array(0);

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function bytesOf(address: string): Uint8Array {
  const parsed = parseAddress(address);
  if (!parsed.ok) throw new TypeError(parsed.reason);
  return parsed.value.bytes;
}

function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** A frame with an IP header of either family around a transport header and payload. */
export function ipPacket(spec: PacketSpec, protocol: number, body: Uint8Array): Uint8Array {
  const ethernet = concat(
    macBytes(spec.destinationMac ?? '0e:57:00:00:00:01'),
    macBytes(spec.sourceMac ?? '02:00:00:00:00:01'),
    new Uint8Array(spec.six ? [0x86, 0xdd] : [8, 0]),
  );
  return concat(ethernet, spec.six ? ip6(spec, protocol, body) : ip4(spec, protocol, body));
}

function ip4(spec: PacketSpec, protocol: number, body: Uint8Array): Uint8Array {
  const options = spec.options ?? none;
  const header = new Uint8Array(20 + options.length);
  const view = new DataView(header.buffer);
  header[0] = 0x40 | (header.length / 4);
  view.setUint16(2, header.length + body.length);
  view.setUint16(4, spec.fragment?.id ?? 0);
  view.setUint16(6, spec.fragment === undefined ? 0 : (spec.fragment.more ? 0x2000 : 0) | (spec.fragment.offset >> 3));
  header[8] = spec.ttl ?? 64;
  header[9] = protocol;
  header.set(bytesOf(spec.from.ipv4), 12);
  header.set(bytesOf(spec.to.ipv4), 16);
  header.set(options, 20);
  view.setUint16(10, checksum(header));
  return concat(header, body);
}

function ip6(spec: PacketSpec, protocol: number, body: Uint8Array): Uint8Array {
  let next = protocol;
  let rest = body;
  if (spec.fragment !== undefined) {
    const header = new Uint8Array(8);
    header[0] = next;
    const view = new DataView(header.buffer);
    view.setUint16(2, spec.fragment.offset | (spec.fragment.more ? 1 : 0));
    view.setUint32(4, spec.fragment.id);
    rest = concat(header, rest);
    next = 44;
  }
  for (const extension of [...(spec.extensions ?? [])].reverse()) {
    const inside = extension.body ?? new Uint8Array(6);
    const padded = new Uint8Array(Math.ceil((inside.length + 2) / 8) * 8);
    padded[0] = next;
    padded[1] = padded.length / 8 - 1;
    padded.set(inside, 2);
    rest = concat(padded, rest);
    next = extension.type;
  }
  const header = new Uint8Array(40);
  header[0] = 0x60;
  new DataView(header.buffer).setUint16(4, rest.length);
  header[6] = next;
  header[7] = spec.ttl ?? 64;
  header.set(bytesOf(spec.from.ipv6), 8);
  header.set(bytesOf(spec.to.ipv6), 24);
  return concat(header, rest);
}

/** A TCP segment. */
export function tcpPacket(
  spec: PacketSpec & PortSpec & { flags: readonly TcpFlag[]; sequence?: number; acknowledge?: number },
): Uint8Array {
  const header = new Uint8Array(20);
  const view = new DataView(header.buffer);
  view.setUint16(0, spec.sourcePort);
  view.setUint16(2, spec.destinationPort);
  view.setUint32(4, spec.sequence ?? 0);
  view.setUint32(8, spec.acknowledge ?? 0);
  header[12] = 0x50;
  header[13] = spec.flags.reduce((bits, flag) => bits | tcpFlagBits[flag], 0);
  return ipPacket(spec, 6, concat(header, spec.payload ?? none));
}

/** A UDP datagram. */
export function udpPacket(spec: PacketSpec & PortSpec): Uint8Array {
  const payload = spec.payload ?? none;
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint16(0, spec.sourcePort);
  view.setUint16(2, spec.destinationPort);
  view.setUint16(4, 8 + payload.length);
  return ipPacket(spec, 17, concat(header, payload));
}

/** An SCTP packet with one chunk, which holds the payload: INIT is 1, DATA 0. */
export function sctpPacket(spec: PacketSpec & PortSpec & { chunk?: number }): Uint8Array {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  view.setUint16(0, spec.sourcePort);
  view.setUint16(2, spec.destinationPort);
  const payload = spec.payload ?? none;
  header[12] = spec.chunk ?? 1;
  view.setUint16(14, 4 + payload.length);
  return ipPacket(spec, 132, concat(header, payload));
}

/** An ICMP or ICMPv6 message. `rest` are the bytes from the fifth on; an echo has its identifier first. */
export function icmpPacket(spec: PacketSpec & { type: number; code?: number; rest?: Uint8Array }): Uint8Array {
  return ipPacket(
    spec,
    spec.six ? 58 : 1,
    concat(new Uint8Array([spec.type, spec.code ?? 0, 0, 0]), spec.rest ?? new Uint8Array(4)),
  );
}

/** An echo request or reply. */
export function echoPacket(spec: PacketSpec & { id: number; reply?: boolean }): Uint8Array {
  const type = spec.six ? (spec.reply ? 129 : 128) : spec.reply ? 0 : 8;
  return icmpPacket({ ...spec, type, rest: new Uint8Array([spec.id >> 8, spec.id & 255, 0, 1]) });
}

/** An ICMP error that speaks of `about`, a whole frame. */
export function icmpErrorPacket(spec: PacketSpec & { type: number; code?: number; about: Uint8Array }): Uint8Array {
  return icmpPacket({ ...spec, rest: concat(new Uint8Array(4), spec.about.slice(14, 14 + 128)) });
}
