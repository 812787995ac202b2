// Protocols and ports as prefixes of 24 bits (protocol 8, port 16), the way the kernel's longest-prefix map sees them.

/** All connections, those of a protocol, or those to a block of ports that is a power of two. */
export interface PortPrefix {
  readonly protocol: number;
  readonly port: number;
  /** 0, 8, or 8 plus the leading bits of the port that count. */
  readonly prefixBits: number;
}

/** Every protocol. */
export const anything: PortPrefix = { protocol: 0, port: 0, prefixBits: 0 };

/** Every port of a protocol. */
export function protocolPrefix(protocol: number): PortPrefix {
  return { protocol, port: 0, prefixBits: 8 };
}

/** One port. */
export function portPrefix(protocol: number, port: number): PortPrefix {
  return { protocol, port, prefixBits: 24 };
}

/** The fewest prefixes that cover the ports from `first` to `last`, both included. */
export function portRangePrefixes(protocol: number, first: number, last: number): PortPrefix[] {
  const prefixes: PortPrefix[] = [];
  let port = first;
  while (port <= last) {
    let size = port === 0 ? 65_536 : port & -port;
    while (port + size - 1 > last) size /= 2;
    prefixes.push({ protocol, port, prefixBits: 24 - Math.log2(size) });
    port += size;
  }
  return prefixes;
}

/** The part of a prefix that a shorter one sees. */
export function widen(prefix: PortPrefix, prefixBits: number): PortPrefix {
  if (prefixBits < 8) return anything;
  const shift = 24 - prefixBits;
  return { protocol: prefix.protocol, port: (prefix.port >> shift) << shift, prefixBits };
}

/** A number that is equal for equal prefixes and sorts them from the widest to the narrowest. */
export function prefixNumber(prefix: PortPrefix): number {
  return prefix.prefixBits * 2 ** 24 + prefix.protocol * 65_536 + prefix.port;
}
