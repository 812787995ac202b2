// Reads messages of DNS (RFC 1035, 3596) as they went over the wire. They come from strangers and may be cut off: what can
// be read is told, and nothing is believed about lengths or pointers.
import { formatAddress } from '../../core/ip.ts';

/** What a message says. */
export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  readonly rcode: number;
  /** Lower case, with the final dot; bytes that are no printable ASCII as `\ddd`, as zone files write them. */
  readonly query: string;
  readonly queryType: string;
  readonly addresses: readonly string[];
  readonly cnames: readonly string[];
  /** Types of the answers, each once. */
  readonly recordTypes: readonly string[];
  /** Seconds: the least of the answers'; 0 without any. */
  readonly ttl: number;
}

const typeNames: Readonly<Record<number, string>> = {
  1: 'A',
  2: 'NS',
  5: 'CNAME',
  6: 'SOA',
  12: 'PTR',
  13: 'HINFO',
  15: 'MX',
  16: 'TXT',
  28: 'AAAA',
  29: 'LOC',
  33: 'SRV',
  35: 'NAPTR',
  39: 'DNAME',
  41: 'OPT',
  43: 'DS',
  46: 'RRSIG',
  48: 'DNSKEY',
  64: 'SVCB',
  65: 'HTTPS',
  252: 'AXFR',
  255: 'ANY',
  257: 'CAA',
};

const rcodeNames: Readonly<Record<number, string>> = {
  0: 'NOERROR',
  1: 'FORMERR',
  2: 'SERVFAIL',
  3: 'NXDOMAIN',
  4: 'NOTIMP',
  5: 'REFUSED',
  6: 'YXDOMAIN',
  7: 'YXRRSET',
  8: 'NXRRSET',
  9: 'NOTAUTH',
  10: 'NOTZONE',
};

/** `NXDOMAIN`; `RCODE23` for what has no name. */
export function rcodeText(rcode: number): string {
  return rcodeNames[rcode] ?? `RCODE${rcode}`;
}

const maxNameBytes = 255;
const maxAnswers = 128;
/** What is kept of the names and addresses in answers: every flow in memory has its own. */
const maxKept = 16;
const maxNameChars = 512;

/** Reads a message; undefined when it is none, or has not even its question. */
export function parseDns(bytes: Uint8Array): DnsMessage | undefined {
  if (bytes.length < 12) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const flags = view.getUint16(2);
  if (view.getUint16(4) === 0 || ((flags >> 11) & 15) !== 0) return undefined; // no question, or no plain query
  const question = readName(bytes, 12);
  if (question === undefined || question.end + 4 > bytes.length) return undefined;
  const addresses: string[] = [];
  const cnames: string[] = [];
  const types = new Set<string>();
  let ttl = Number.POSITIVE_INFINITY;
  let at = question.end + 4;
  // What follows further questions cannot be told from them when they are cut off.
  for (let left = view.getUint16(4) - 1; left > 0 && left < maxAnswers; left--) {
    const name = readName(bytes, at);
    if (name === undefined) return undefined;
    at = name.end + 4;
  }
  for (let left = Math.min(view.getUint16(6), maxAnswers); left > 0; left--) {
    const name = readName(bytes, at);
    if (name === undefined || name.end + 10 > bytes.length) break;
    const type = view.getUint16(name.end);
    const lenBytes = view.getUint16(name.end + 8);
    const data = name.end + 10;
    if (data + lenBytes > bytes.length) break;
    if (types.size < maxKept) types.add(typeText(type));
    ttl = Math.min(ttl, view.getUint32(name.end + 4));
    if (addresses.length + cnames.length >= maxKept) {
      at = data + lenBytes;
      continue;
    }
    if (type === 1 && lenBytes === 4) addresses.push(formatAddress({ family: 4, bytes: bytes.slice(data, data + 4) }));
    else if (type === 28 && lenBytes === 16)
      addresses.push(formatAddress({ family: 6, bytes: bytes.slice(data, data + 16) }));
    else if (type === 5) {
      const target = readName(bytes, data);
      if (target !== undefined) cnames.push(target.text);
    }
    at = data + lenBytes;
  }
  return {
    id: view.getUint16(0),
    response: (flags & 0x8000) !== 0,
    rcode: flags & 15,
    query: question.text,
    queryType: typeText(view.getUint16(question.end)),
    addresses,
    cnames,
    recordTypes: [...types],
    ttl: Number.isFinite(ttl) ? ttl : 0,
  };
}

/**
 * Reads the first message of a segment of a stream (RFC 1035, 4.2.2), or as much of it as there is. The length before the message
 * may have come in a segment of its own. Undefined for what is the middle of a message, which most segments of a long answer
 * are: it must not look like another one.
 */
export function parseDnsStream(bytes: Uint8Array): DnsMessage | undefined {
  if (bytes.length < 2) return undefined;
  const lenBytes = bytes[0]! * 256 + bytes[1]!;
  // The whole message, the first segment of a longer one, or one of several that were asked for at once.
  const message = lenBytes < 12 ? undefined : parseDns(bytes.subarray(2, 2 + lenBytes));
  if (message !== undefined && isPlain(bytes.subarray(2))) return message;
  return isPlain(bytes) ? parseDns(bytes) : undefined;
}

/** Whether the header is one that is seen: one question, and the bit that has to be zero is. */
function isPlain(bytes: Uint8Array): boolean {
  return bytes[4] === 0 && bytes[5] === 1 && (bytes[3]! & 0x40) === 0;
}

function typeText(type: number): string {
  return typeNames[type] ?? `TYPE${type}`;
}

/** A name, and where what follows it begins. Pointers only lead backwards, so that they end. */
function readName(bytes: Uint8Array, start: number): { text: string; end: number } | undefined {
  let text = '';
  let at = start;
  let end = 0;
  let total = 0;
  for (;;) {
    const length = bytes[at];
    if (length === undefined) return undefined;
    // One piece: a text that was put together by the character takes many times its length.
    if (length === 0)
      return { text: text === '' ? '.' : Buffer.from(text, 'latin1').toString('latin1'), end: end || at + 1 };
    if (text.length > maxNameChars) return undefined;
    if ((length & 0xc0) === 0xc0) {
      const low = bytes[at + 1];
      if (low === undefined) return undefined;
      const to = ((length & 0x3f) << 8) | low;
      if (to >= at) return undefined;
      end ||= at + 2;
      at = to;
      continue;
    }
    if (length > 63) return undefined;
    total += length + 1;
    if (total > maxNameBytes || at + 1 + length > bytes.length) return undefined;
    for (let i = at + 1; i <= at + length; i++) text += characterText(bytes[i]!);
    text += '.';
    at += 1 + length;
  }
}

function characterText(byte: number): string {
  if (byte >= 0x41 && byte <= 0x5a) return String.fromCharCode(byte + 32);
  if (byte === 0x2e || byte === 0x5c) return `\\${String.fromCharCode(byte)}`;
  return byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`;
}
