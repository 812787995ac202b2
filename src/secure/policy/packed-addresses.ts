// Addresses and blocks by their text, 17 bytes each beside it: a node knows every address of the cluster, and as
// objects they would be most of the agent's memory. Each has a slot, under which others keep what they know of it.
import type { Cidr, IpAddress } from '../../core/ip.ts';

/** The addresses. Slots are small numbers and are used again. */
export interface PackedAddresses {
  slotOf(text: string): number | undefined;
  /** The slot for a new text. */
  add(text: string, address: IpAddress | Cidr): number;
  remove(text: string): void;
  isBlock(slot: number): boolean;
  address(slot: number): IpAddress | Cidr;
  /** All texts with their slots. */
  entries(): IterableIterator<[string, number]>;
  /** The texts of all that lie in a block, itself included. */
  inside(block: Cidr): Iterable<string>;
}

const wordsEach = 4;
/** In a slot's byte: the prefix length of a block, or that it is an address. */
const exact = 0xff;

/** Makes an empty set. */
export function createPackedAddresses(): PackedAddresses {
  const slots = new Map<string, number>();
  const free: number[] = [];
  let words = new Uint32Array(64 * wordsEach);
  let bits = new Uint8Array(64);
  let isV6 = new Uint8Array(64);
  let used = 0;

  function grow(): void {
    const wider = <T extends Uint8Array | Uint32Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    words = wider(words, new Uint32Array(words.length * 2));
    bits = wider(bits, new Uint8Array(bits.length * 2));
    isV6 = wider(isV6, new Uint8Array(isV6.length * 2));
  }

  return {
    slotOf: (text) => slots.get(text),
    add(text, address) {
      const slot = free.pop() ?? used++;
      if (slot >= bits.length) grow();
      pack(address.bytes, words, slot * wordsEach);
      bits[slot] = 'prefixBits' in address ? address.prefixBits : exact;
      isV6[slot] = address.family === 6 ? 1 : 0;
      slots.set(text, slot);
      return slot;
    },
    remove(text) {
      const slot = slots.get(text);
      if (slot === undefined) return;
      slots.delete(text);
      free.push(slot);
    },
    isBlock: (slot) => bits[slot] !== exact,
    address(slot) {
      const family = isV6[slot] === 1 ? 6 : 4;
      const bytes = unpack(words, slot * wordsEach, family);
      const prefixBits = bits[slot]!;
      return prefixBits === exact ? { family, bytes } : { family, bytes, prefixBits };
    },
    entries: () => slots.entries(),
    *inside(block) {
      const wanted = new Uint32Array(wordsEach);
      pack(block.bytes, wanted, 0);
      const masks = wanted.map((_, i) => maskWord(block.prefixBits - 32 * i));
      const family = block.family === 6 ? 1 : 0;
      for (const [text, slot] of slots) {
        // What has the longer prefix lies inside; an address has the longest.
        if (isV6[slot] !== family || bits[slot]! < block.prefixBits) continue;
        let differs = 0;
        for (let i = 0; i < wordsEach; i++) differs |= (words[slot * wordsEach + i]! ^ wanted[i]!) & masks[i]!;
        if (differs === 0) yield text;
      }
    },
  };
}

/** The word of a mask with so many bits left. */
function maskWord(bitsLeft: number): number {
  if (bitsLeft <= 0) return 0;
  return bitsLeft >= 32 ? 0xffff_ffff : ~(0xffff_ffff >>> bitsLeft) >>> 0;
}

function pack(bytes: Uint8Array, words: Uint32Array, at: number): void {
  words.fill(0, at, at + wordsEach);
  for (let i = 0; i < bytes.length; i++) words[at + (i >> 2)]! |= bytes[i]! << (24 - 8 * (i & 3));
}

function unpack(words: Uint32Array, at: number, family: 4 | 6): Uint8Array {
  const bytes = new Uint8Array(family === 4 ? 4 : 16);
  for (let i = 0; i < bytes.length; i++) bytes[i] = words[at + (i >> 2)]! >>> (24 - 8 * (i & 3));
  return bytes;
}
