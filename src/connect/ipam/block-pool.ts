// Cuts the cluster's pools into blocks, one per node and family. Pure: who has which block is an argument.
import { type Cidr, cidrContains, formatCidr, parseCidr } from '../../core/ip.ts';

/** A range of addresses and the prefix length of the blocks it is cut into. */
export interface Pool {
  readonly cidr: string;
  readonly blockBits: number;
}

/** What is wrong with a pool, or undefined. */
export function poolProblem(pool: Pool): string | undefined {
  const parsed = parseCidr(pool.cidr);
  if (!parsed.ok) return `${pool.cidr}: ${parsed.reason}`;
  const width = parsed.value.family === 4 ? 32 : 128;
  if (!Number.isInteger(pool.blockBits) || pool.blockBits < parsed.value.prefixBits || pool.blockBits > width - 2)
    return `${pool.cidr}: blocks of /${pool.blockBits} do not fit: use a number from ${parsed.value.prefixBits} to ${width - 2}`;
  if (pool.blockBits - parsed.value.prefixBits > 24)
    return `${pool.cidr}: more than 16 million blocks: use larger blocks or a smaller pool`;
  return undefined;
}

function toBigInt(bytes: Uint8Array): bigint {
  let n = 0n;
  for (const byte of bytes) n = (n << 8n) | BigInt(byte);
  return n;
}

function toBytes(n: bigint, lenBytes: number): Uint8Array {
  const bytes = new Uint8Array(lenBytes);
  for (let i = lenBytes - 1, rest = n; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  return bytes;
}

/** The name of the object that claims a block: the same for every way to write it, and another for every other block. */
export function blockName(cidr: string): string {
  const parsed = parseCidr(cidr);
  if (!parsed.ok) throw new Error(`${cidr}: ${parsed.reason}`);
  const { family, bytes, prefixBits } = parsed.value;
  if (family === 4) return `v4-${[...bytes].join('-')}-${prefixBits}`;
  return `v6-${Buffer.from(bytes).toString('hex').match(/.{4}/g)!.join('-')}-${prefixBits}`;
}

/** The number of blocks in a pool. */
export function blockCount(pool: Pool): number {
  const parsed = parseCidr(pool.cidr);
  return parsed.ok ? 2 ** (pool.blockBits - parsed.value.prefixBits) : 0;
}

/** The first block of the pool that overlaps none in `used`; undefined when there is none. */
export function nextBlock(pool: Pool, used: ReadonlySet<string>): string | undefined {
  const parsed = parseCidr(pool.cidr);
  if (!parsed.ok) return undefined;
  const width = parsed.value.family === 4 ? 32 : 128;
  const base = toBigInt(parsed.value.bytes);
  const step = 1n << BigInt(width - pool.blockBits);
  // Blocks of another size may be around after the setting changed: those are compared, equal ones looked up.
  const others: Cidr[] = [];
  for (const text of used) {
    const other = parseCidr(text);
    if (other.ok && other.value.family === parsed.value.family && other.value.prefixBits !== pool.blockBits)
      others.push(other.value);
  }
  for (let i = 0; i < blockCount(pool); i++) {
    const block: Cidr = {
      ...parsed.value,
      bytes: toBytes(base + BigInt(i) * step, width / 8),
      prefixBits: pool.blockBits,
    };
    const text = formatCidr(block);
    if (used.has(text)) continue;
    if (others.some((other) => cidrContains(other, block) || cidrContains(block, other))) continue;
    return text;
  }
  return undefined;
}
