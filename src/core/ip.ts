// IP addresses and CIDR blocks of both families: strict parsing, canonical text (RFC 5952), containment.
// Nothing here throws on hostile input: parsing answers with a reason. What could mean two things is refused:
// leading zeros (octal or decimal?), zones, IPv4 in IPv6.

/** The outcome of parsing. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

/** An address as its 4 or 16 bytes, most significant first. */
export interface IpAddress {
  readonly family: 4 | 6;
  readonly bytes: Uint8Array;
}

/** A block: the bytes beyond `prefixBits` are zero. */
export interface Cidr extends IpAddress {
  readonly prefixBits: number;
}

const refuse = (reason: string): { ok: false; reason: string } => ({ ok: false, reason });
const show = (text: string): string => JSON.stringify(text.length > 64 ? `${text.slice(0, 61)}...` : text);

/** Parses an address without prefix or zone. */
export function parseAddress(text: unknown): Parsed<IpAddress> {
  if (typeof text !== 'string') return refuse('an address must be a text');
  if (text.length > 45) return refuse(`${show(text)} is too long for an address`);
  if (text.includes('/')) return refuse(`${show(text)} is a block, not an address`);
  return text.includes(':') ? parseV6(text) : parseV4(text);
}

/** Parses a block such as 10.0.0.0/8 or fd00::/8. Bits beyond the prefix are cleared, as the API server reads blocks. */
export function parseCidr(text: unknown): Parsed<Cidr> {
  if (typeof text !== 'string') return refuse('a block must be a text');
  if (text.length > 49) return refuse(`${show(text)} is too long for a block`);
  const slash = text.indexOf('/');
  if (slash < 0) return refuse(`${show(text)} has no prefix length, such as /24`);
  const address = parseAddress(text.slice(0, slash));
  if (!address.ok) return address;
  const bits = text.slice(slash + 1);
  const max = address.value.bytes.length * 8;
  if (!/^(0|[1-9]\d{0,2})$/.test(bits) || Number(bits) > max) {
    return refuse(`${show(text)} needs a prefix length from 0 to ${max}`);
  }
  return { ok: true, value: maskAddress(address.value, Number(bits)) };
}

function parseV4(text: string): Parsed<IpAddress> {
  const bytes = new Uint8Array(4);
  let part = 0;
  let digits = 0;
  let value = 0;
  for (let i = 0; i <= text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit >= 0 && digit <= 9) {
      if (digits === 1 && value === 0) return refuse(`${show(text)} has a leading zero`);
      value = value * 10 + digit;
      if (++digits > 3) return refuse(`${show(text)} is not an IP address`);
      continue;
    }
    const ends = i === text.length;
    if (digits === 0 || (part === 3) !== ends || !(ends || text[i] === '.'))
      return refuse(`${show(text)} is not an IP address`);
    if (value > 255) return refuse(`${show(text)} has a part above 255`);
    bytes[part++] = value;
    digits = 0;
    value = 0;
  }
  return { ok: true, value: { family: 4, bytes } };
}

function parseV6(text: string): Parsed<IpAddress> {
  if (text.includes('%')) return refuse(`${show(text)} has a zone`);
  if (text.includes('.')) return refuse(`${show(text)} mixes IPv4 and IPv6`);
  const halves = text.split('::');
  if (halves.length > 2) return refuse(`${show(text)} has :: twice`);
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const groups = head.length + tail.length;
  if (halves.length === 1 ? groups !== 8 : groups > 7) return refuse(`${show(text)} is not an IP address`);
  const bytes = new Uint8Array(16);
  for (const [list, start] of [[head, 0] as const, [tail, 8 - tail.length] as const]) {
    for (const [i, group] of list.entries()) {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return refuse(`${show(text)} is not an IP address`);
      const value = Number.parseInt(group, 16);
      bytes[(start + i) * 2] = value >> 8;
      bytes[(start + i) * 2 + 1] = value & 0xff;
    }
  }
  const mapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (mapped) return refuse(`${show(text)} is IPv4 written as IPv6`);
  return { ok: true, value: { family: 6, bytes } };
}

/** The canonical text of an address. */
export function formatAddress(address: IpAddress): string {
  const { bytes } = address;
  if (address.family === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[i * 2]! << 8) | bytes[i * 2 + 1]!);
  const zeros = longestZeroRun(groups);
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (zeros.length < 2) return hex(groups);
  return `${hex(groups.slice(0, zeros.start))}::${hex(groups.slice(zeros.start + zeros.length))}`;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  return best;
}

/** The canonical text of a block. */
export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr)}/${cidr.prefixBits}`;
}

/** The block of `prefixBits` that an address lies in. */
export function maskAddress(address: IpAddress, prefixBits: number): Cidr {
  const bytes = address.bytes.map((byte, i) => {
    const keep = Math.min(8, Math.max(0, prefixBits - i * 8));
    return byte & (0xff00 >> keep) & 0xff;
  });
  return { family: address.family, bytes, prefixBits };
}

/** The block that holds one address only. */
export function hostCidr(address: IpAddress): Cidr {
  return { ...address, prefixBits: address.bytes.length * 8 };
}

/** Whether an address, or all of another block, lies in a block. Families never contain each other. */
export function cidrContains(outer: Cidr, inner: IpAddress | Cidr): boolean {
  if (outer.family !== inner.family) return false;
  if ('prefixBits' in inner && inner.prefixBits < outer.prefixBits) return false;
  const whole = outer.prefixBits >> 3;
  for (let i = 0; i < whole; i++) if (outer.bytes[i] !== inner.bytes[i]) return false;
  const rest = outer.prefixBits & 7;
  return rest === 0 || ((outer.bytes[whole]! ^ inner.bytes[whole]!) & (0xff00 >> rest) & 0xff) === 0;
}

/** The canonical text of an address or block given as text; undefined when it is neither. */
export function canonicalIp(text: string): string | undefined {
  if (text.includes('/')) {
    const cidr = parseCidr(text);
    return cidr.ok ? formatCidr(cidr.value) : undefined;
  }
  const address = parseAddress(text);
  if (!address.ok) return undefined;
  return address.value.family === 4 ? text : formatAddress(address.value); // IPv4 is read in its canonical text only
}
