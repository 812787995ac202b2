// Addresses go in and out of this folder as text; what cannot be parsed is the caller's bug, and throws.
import { formatAddress, type IpAddress, parseAddress } from '../core/ip.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

/** The address family number of a parsed address. */
export function familyOf(address: IpAddress): number {
  return address.family === 4 ? AF_INET : AF_INET6;
}

/** Parses an address, or throws RangeError. */
export function toAddress(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new RangeError(parsed.reason);
  return parsed.value;
}

/** Parses `address/bits`, or an address alone as one with all bits. Bits beyond the prefix are kept. */
export function toPrefixed(text: string): IpAddress & { prefixBits: number } {
  const [address = '', bits, ...rest] = text.split('/');
  const parsed = toAddress(address);
  const allBits = parsed.bytes.length * 8;
  const prefixBits = bits === undefined ? allBits : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
  if (rest.length > 0 || !(prefixBits <= allBits)) throw new RangeError(`${JSON.stringify(text)} has no valid prefix`);
  return { ...parsed, prefixBits };
}

/** The text of the 4 or 16 bytes of an address. */
export function addressText(bytes: Uint8Array): string {
  return formatAddress({ family: bytes.length === 4 ? 4 : 6, bytes });
}

/** The text of the unspecified address of a family. */
export function anyAddress(family: number): string {
  return family === AF_INET ? '0.0.0.0' : '::';
}
