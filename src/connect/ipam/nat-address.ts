// The address of a node's block behind which the node translates for clients outside: the last one that a pod could have.
// Every agent computes it from the block, so nobody has to be told.
import { formatAddress, parseCidr } from '../../core/ip.ts';

/** Hosts bits of a block beyond these are not used by pods either. */
const maxHostBits = 16;

/** The address of the block, in canonical text; undefined for a block too small to spare one, or for no block. */
export function natAddress(cidr: string): string | undefined {
  const parsed = parseCidr(cidr);
  if (!parsed.ok) return undefined;
  const { family, bytes, prefixBits } = parsed.value;
  const hostBits = Math.min((family === 4 ? 32 : 128) - prefixBits, maxHostBits);
  if (hostBits < 3) return undefined;
  const address = Uint8Array.from(bytes);
  // All ones is the network's broadcast address in IPv4, and left out of pools in both families.
  const offset = 2 ** hostBits - 2;
  const last = address.length - 1;
  address[last] = address[last]! | (offset & 0xff);
  address[last - 1] = address[last - 1]! | (offset >> 8);
  return formatAddress({ family, bytes: address });
}
