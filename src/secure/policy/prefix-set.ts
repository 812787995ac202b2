// A counted set of blocks that answers which of them contain an address. Costs one lookup per prefix length in use,
// so a few hundred blocks cost what one does.
import { type Cidr, formatCidr, type IpAddress, maskAddress } from '../../core/ip.ts';

/** The set. Blocks are counted: what was added twice must be removed twice. */
export interface PrefixSet {
  /** True when the block is new. */
  add(cidr: Cidr): boolean;
  /** True when the block is gone. */
  remove(cidr: Cidr): boolean;
  has(cidr: string): boolean;
  /** The blocks that contain all of an address or block, shortest prefix first. */
  containing(inner: IpAddress | Cidr): string[];
  values(): IterableIterator<Cidr>;
  readonly size: number;
}

/** Makes an empty set. */
export function createPrefixSet(): PrefixSet {
  const blocks = new Map<string, { cidr: Cidr; count: number }>();
  /** How many blocks there are of each prefix length, by family. */
  const lengths = { 4: new Map<number, number>(), 6: new Map<number, number>() };

  function countLength(cidr: Cidr, by: 1 | -1): void {
    const counts = lengths[cidr.family];
    const count = (counts.get(cidr.prefixBits) ?? 0) + by;
    if (count > 0) counts.set(cidr.prefixBits, count);
    else counts.delete(cidr.prefixBits);
  }

  return {
    get size() {
      return blocks.size;
    },
    add(cidr) {
      const text = formatCidr(cidr);
      const block = blocks.get(text);
      if (block !== undefined) {
        block.count++;
        return false;
      }
      blocks.set(text, { cidr, count: 1 });
      countLength(cidr, 1);
      return true;
    },
    remove(cidr) {
      const text = formatCidr(cidr);
      const block = blocks.get(text);
      if (block === undefined || --block.count > 0) return false;
      blocks.delete(text);
      countLength(cidr, -1);
      return true;
    },
    has: (cidr) => blocks.has(cidr),
    containing(inner) {
      const longest = 'prefixBits' in inner ? inner.prefixBits : 128;
      const found: string[] = [];
      for (const prefixBits of [...lengths[inner.family].keys()].sort((a, b) => a - b)) {
        if (prefixBits > longest) break;
        const text = formatCidr(maskAddress(inner, prefixBits));
        if (blocks.has(text)) found.push(text);
      }
      return found;
    },
    *values() {
      for (const { cidr } of blocks.values()) yield cidr;
    },
  };
}
