// Names of this node's devices, for who has their numbers and asks again and again.
import { getLink } from './links.ts';
import type { Netlink } from './netlink.ts';

/** What a device is called is asked again after so long: few are ever given another name. */
const freshMs = 60_000;
/** The same for numbers that found no device: it is gone, and what is still told of it is soon over. */
const goneMs = 1_000;
/** Numbers only grow: those of devices that are gone are not kept for ever. */
const maxKept = 16_384;

/** Answers with the name of a device; empty when there is none of this number. */
export function createDeviceNames(
  netlink: Netlink,
  nowMs: () => number = Date.now,
  find: (netlink: Netlink, ifindex: number) => { readonly name: string } | undefined = getLink,
): (ifindex: number) => string {
  const known = new Map<number, { readonly name: string; readonly untilMs: number }>();
  /** A kernel that cannot answer now, as when it has no memory, must not end what only wants a name. */
  function nameNow(ifindex: number): string | undefined {
    try {
      return find(netlink, ifindex)?.name;
    } catch {
      return undefined;
    }
  }
  return (ifindex) => {
    const now = nowMs();
    const before = known.get(ifindex);
    if (before !== undefined && now < before.untilMs) return before.name;
    // A device that is gone keeps the name that it had: flows are still told of it.
    const name = nameNow(ifindex);
    if (known.size >= maxKept) known.clear();
    known.set(ifindex, { name: name ?? before?.name ?? '', untilMs: now + (name === undefined ? goneMs : freshMs) });
    return known.get(ifindex)!.name;
  };
}
