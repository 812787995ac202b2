// Ranges of addresses as numbers: what a pool's blocks come down to, and how large they are.
import { formatAddress, type IpAddress, type Parsed, parseAddress, parseCidr } from '../../core/ip.ts';

/** Addresses of one family, from `first` to `last`, both included. */
export interface AddressRange {
  readonly family: 4 | 6;
  readonly first: bigint;
  readonly last: bigint;
}

/** A block as a pool names it: a CIDR, or the first and the last address; the last may be left out. */
export interface PoolBlock {
  readonly cidr?: string;
  readonly start?: string;
  readonly stop?: string;
}

/** An address as a number. */
export function addressNumber(address: IpAddress): bigint {
  let number = 0n;
  for (const byte of address.bytes) number = (number << 8n) | BigInt(byte);
  return number;
}

/** The canonical text of the address with this number. */
export function addressText(family: 4 | 6, number: bigint): string {
  const bytes = new Uint8Array(family === 4 ? 4 : 16);
  for (let i = bytes.length - 1, rest = number; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  return formatAddress({ family, bytes });
}

/** The addresses of a block. Without `firstAndLast` the ends of a CIDR are left out, unless it has only one or two. */
export function blockRange(block: PoolBlock, firstAndLast: boolean): Parsed<AddressRange> {
  const refuse = (reason: string): Parsed<AddressRange> => ({ ok: false, reason });
  if (block.cidr) {
    if (block.start || block.stop)
      return refuse(`${block.cidr} has a start or stop beside its cidr: give one or the other`);
    const cidr = parseCidr(block.cidr);
    if (!cidr.ok) return cidr;
    const { family, bytes, prefixBits } = cidr.value;
    const first = addressNumber(cidr.value);
    const freeBits = bytes.length * 8 - prefixBits;
    const last = first + (1n << BigInt(freeBits)) - 1n;
    const inner = firstAndLast || freeBits < 2 ? 0n : 1n;
    return { ok: true, value: { family, first: first + inner, last: last - inner } };
  }
  if (!block.start) return refuse('a block has neither cidr nor start');
  const start = parseAddress(block.start);
  if (!start.ok) return start;
  const stop = block.stop ? parseAddress(block.stop) : start;
  if (!stop.ok) return stop;
  if (start.value.family !== stop.value.family) return refuse(`${block.start} and ${block.stop} are of two families`);
  const [first, last] = [addressNumber(start.value), addressNumber(stop.value)];
  if (first > last) return refuse(`${block.stop} comes before ${block.start}`);
  return { ok: true, value: { family: start.value.family, first, last } };
}

/** The same addresses in as few ranges as possible, in order. */
export function mergeRanges(ranges: readonly AddressRange[]): AddressRange[] {
  const sorted = [...ranges].sort((a, b) => a.family - b.family || compare(a.first, b.first));
  const merged: AddressRange[] = [];
  for (const range of sorted) {
    const before = merged.at(-1);
    if (before === undefined || before.family !== range.family || range.first > before.last + 1n) merged.push(range);
    else if (range.last > before.last) merged[merged.length - 1] = { ...before, last: range.last };
  }
  return merged;
}

/** The first range of `a` that has addresses of `b`, with that of `b`. */
export function overlap(
  a: readonly AddressRange[],
  b: readonly AddressRange[],
): readonly [AddressRange, AddressRange] | undefined {
  for (const left of a)
    for (const right of b)
      if (left.family === right.family && left.first <= right.last && right.first <= left.last) return [left, right];
  return undefined;
}

/** How many addresses these ranges have. They must not overlap. */
export function rangeSize(ranges: readonly AddressRange[]): bigint {
  return ranges.reduce((sum, range) => sum + range.last - range.first + 1n, 0n);
}

/** The range for people. */
export function rangeText({ family, first, last }: AddressRange): string {
  return first === last ? addressText(family, first) : `${addressText(family, first)}-${addressText(family, last)}`;
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
