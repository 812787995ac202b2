// Addresses and blocks as the datapath's maps have them: 16 bytes, IPv4 as ::ffff:a.b.c.d.
import { formatAddress, parseAddress, parseCidr } from '../../core/ip.ts';

/** The 16 bytes of an address in canonical text. */
export function addressBytes(text: string): Uint8Array {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new TypeError(`not an address: ${text}`);
  return mapped(parsed.value.bytes);
}

/** A block as a key of the prefix table: an IPv4 prefix counts 96 bits more. */
export function blockKey(text: string): { prefixlen: number; addr: Uint8Array } {
  const parsed = parseCidr(text);
  if (!parsed.ok) throw new TypeError(`not a block: ${text}`);
  const { family, bytes, prefixBits } = parsed.value;
  return { prefixlen: family === 4 ? 96 + prefixBits : prefixBits, addr: mapped(bytes) };
}

/** The text of 16 bytes. */
export function addressText(bytes: Uint8Array): string {
  const four = isMapped(bytes);
  return formatAddress({ family: four ? 4 : 6, bytes: four ? bytes.slice(12) : bytes });
}

/** The text of a prefix table's key. */
export function blockText(key: { prefixlen: number; addr: Uint8Array }): string {
  const four = isMapped(key.addr) && key.prefixlen >= 96;
  return `${four ? addressText(key.addr) : formatAddress({ family: 6, bytes: key.addr })}/${four ? key.prefixlen - 96 : key.prefixlen}`;
}

/** The epoch slot of an address, as bpf/lib/policy.h computes it. */
export function epochSlot(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const word = (i: number) => view.getUint32(i * 4, true);
  const h = word(0) ^ Math.imul(word(1), 0x85ebca6b) ^ Math.imul(word(2), 0xc2b2ae35) ^ word(3);
  return Math.imul(h, 0x9e3779b1) >>> 16;
}

function mapped(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 16) return bytes;
  const all = new Uint8Array(16);
  all[10] = 0xff;
  all[11] = 0xff;
  all.set(bytes, 12);
  return all;
}

function isMapped(bytes: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}
