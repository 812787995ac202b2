// Where connections may have been sent by a Service: whether the sockets' map is worth a look, which is a system call. Most
// connections of most pods go to nobody's backend. A filter of bits: it may say yes too often, and never no to a backend.
import { addressBytes } from '../../connect/datapath/address-keys.ts';
import type { FrontendRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';

/** Backends that there are, and that there were. */
export interface BackendMemory {
  /** Whether the address of 16 bytes at `words[at..at+3]` may have been a backend with this port. */
  mayHave(words: Int32Array, at: number, port: number): boolean;
  close(): void;
}

const slots = 1 << 21;
/** With so many bits set one look in a hundred is in vain; what is no more is forgotten then. */
const crowded = slots / 10;

/**
 * Follows the frontends. `sockets` gives the backends (16 bytes, port) that sockets still talk to, of which some may be in no
 * frontend any more.
 */
export function createBackendMemory(
  frontends: ReadTable<FrontendRow>,
  sockets: () => Iterable<readonly [address: Uint8Array, port: number]>,
): BackendMemory {
  const bits = new Int32Array(slots / 32);
  const words = new Int32Array(4);
  const bytes = new Uint8Array(words.buffer);
  let set = 0;
  let crowdedAt = crowded;
  /** Frontends of one port share their backends. */
  let taken = new WeakSet<FrontendRow['backends']>();

  function mark(slot: number): void {
    const bit = 1 << (slot & 31);
    if ((bits[slot >>> 5]! & bit) !== 0) return;
    bits[slot >>> 5]! |= bit;
    set++;
  }

  function add(address: Uint8Array, port: number): void {
    bytes.set(address);
    const hash = hashOf(words, 0, port);
    mark(firstSlot(hash));
    mark(secondSlot(hash));
  }

  function take({ kind, backends }: FrontendRow): void {
    // A host port is its pod's, not a Service's.
    if (kind === 'HostPort' || taken.has(backends)) return;
    taken.add(backends);
    for (const { address, port } of backends) add(addressBytes(address), port);
  }

  function rebuild(): void {
    bits.fill(0);
    set = 0;
    taken = new WeakSet();
    for (const row of frontends.rows()) take(row);
    for (const [address, port] of sockets()) add(address, port);
    crowdedAt = Math.max(crowded, 2 * set);
  }

  rebuild();
  const close = frontends.subscribe(({ changes }) => {
    for (const { after } of changes) if (after !== undefined) take(after);
    if (set > crowdedAt) rebuild();
  });
  return {
    close,
    mayHave(of, at, port) {
      const hash = hashOf(of, at, port);
      const has = (slot: number) => (bits[slot >>> 5]! & (1 << (slot & 31))) !== 0;
      return has(firstSlot(hash)) && has(secondSlot(hash));
    },
  };
}

function hashOf(words: Int32Array, at: number, port: number): number {
  let hash = Math.imul(port, 0x9e3779b1);
  for (let i = 0; i < 4; i++) {
    hash = Math.imul(hash ^ words[at + i]!, 0x85ebca6b);
    hash ^= hash >>> 15;
  }
  return hash;
}

const firstSlot = (hash: number) => (hash >>> 0) % slots;
const secondSlot = (hash: number) => (Math.imul(hash, 0xc2b2ae35) ^ (hash >>> 13)) & (slots - 1);
