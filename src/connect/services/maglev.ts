// Maglev tables (Eisenbud et al., NSDI 2016): each backend prefers the slots in an order of its own, and they take turns
// until the table is full. Balanced to within a slot; when a backend leaves, hardly any slot of the others moves. The same
// list gives the same table on every node.

/** A backend of a table: its name decides which slots it prefers. */
export interface WeightedBackend {
  readonly name: string;
  /** Share of the slots; 0 gets none. */
  readonly weight: number;
}

/** Where a backend begins, and how it goes on. */
const offsetSeed = 0x2545f491;
const skipSeed = 0x9e3779b1;

/** Slots per backend, at least. */
export const slotsPerBackend = 100;

/** A prime that gives each backend its slots. It changes only when the count passes a power of two: with another size
 * every slot is another backend's. */
export function maglevSize(backends: number): number {
  return nextPrime(2 ** Math.ceil(Math.log2(Math.max(1, backends))) * slotsPerBackend);
}

/** For each slot the index of its backend in `backends`, whose order does not matter; empty when none has a weight. */
export function maglevTable(backends: readonly WeightedBackend[], size: number): Uint32Array {
  const order = [...backends.keys()]
    .filter((index) => backends[index]!.weight > 0)
    .sort((a, b) => (backends[a]!.name < backends[b]!.name ? -1 : 1));
  if (order.length === 0) return new Uint32Array(0);
  const free = 0xffffffff;
  const table = new Uint32Array(size).fill(free);
  const at = Uint32Array.from(order, (index) => hash32(backends[index]!.name, offsetSeed) % size);
  // The size is prime: with any step a backend comes by every slot.
  const skips = Uint32Array.from(
    order,
    (index) => (hash32(backends[index]!.name, skipSeed) % Math.max(1, size - 1)) + 1,
  );
  const weights = Uint32Array.from(order, (index) => backends[index]!.weight);
  const heaviest = weights.reduce((most, weight) => Math.max(most, weight));
  const credit = new Uint32Array(order.length);
  for (let filled = 0; ; ) {
    for (let i = 0; i < order.length; i++) {
      // A backend of half the heaviest one's weight takes a slot every second turn.
      const saved = credit[i]! + weights[i]!;
      credit[i] = saved < heaviest ? saved : saved - heaviest;
      if (saved < heaviest) continue;
      const skip = skips[i]!;
      let slot = at[i]!;
      while (table[slot] !== free) {
        slot += skip;
        if (slot >= size) slot -= size;
      }
      table[slot] = order[i]!;
      slot += skip;
      at[i] = slot >= size ? slot - size : slot;
      if (++filled === size) return table;
    }
  }
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
