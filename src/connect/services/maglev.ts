// Maglev tables (Eisenbud et al., NSDI 2016): each backend prefers the slots in an order of its own, and they take turns
// until the table is full. Balanced to within a slot; when a backend leaves, hardly any slot of the others moves. The same
// list gives the same table on every node.

/** A backend of a table: its name decides which slots it prefers. */
export interface WeightedBackend {
  readonly name: string;
  /** Share of the slots; 0 gets none. */
  readonly weight: number;
}

/** Slots per backend, at least. */
export const slotsPerBackend = 100;

/** The smallest prime that gives each backend its slots. */
export function maglevSize(backends: number): number {
  return nextPrime(Math.max(1, backends) * slotsPerBackend);
}

/** For each slot the index of its backend in `backends`; empty when no backend has a weight. */
export function maglevTable(backends: readonly WeightedBackend[], size: number): Uint32Array {
  const taking = backends
    .map((backend, index) => ({ index, weight: backend.weight, ...preference(backend.name, size) }))
    .filter((each) => each.weight > 0);
  if (taking.length === 0) return new Uint32Array(0);
  const free = 0xffffffff;
  const table = new Uint32Array(size).fill(free);
  const heaviest = Math.max(...taking.map((each) => each.weight));
  const at = taking.map((each) => each.offset);
  const credit = new Float64Array(taking.length);
  for (let filled = 0; ; ) {
    for (let i = 0; i < taking.length; i++) {
      const { index, weight, skip } = taking[i]!;
      // A backend of half the heaviest one's weight takes a slot every second turn.
      credit[i] = credit[i]! + weight;
      if (credit[i]! < heaviest) continue;
      credit[i] = credit[i]! - heaviest;
      let slot = at[i]!;
      while (table[slot] !== free) {
        slot += skip;
        if (slot >= size) slot -= size;
      }
      table[slot] = index;
      slot += skip;
      at[i] = slot >= size ? slot - size : slot;
      if (++filled === size) return table;
    }
  }
}

/** Where a backend begins and how it goes on; the size is prime, so it comes by every slot. */
function preference(name: string, size: number): { offset: number; skip: number } {
  return { offset: hash32(name, 0x2545f491) % size, skip: (hash32(name, 0x9e3779b1) % Math.max(1, size - 1)) + 1 };
}

/** FNV-1a with a final mix: a text's hash, the same everywhere. */
export function hash32(text: string, seed: number): number {
  let h = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function nextPrime(from: number): number {
  let candidate = from;
  while (!isPrime(candidate)) candidate++;
  return candidate;
}

function isPrime(n: number): boolean {
  if (n < 2) return false;
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return true;
}
