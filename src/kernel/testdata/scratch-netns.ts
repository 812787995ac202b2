// A network namespace for one test, with a netlink socket in it.
import { closeFd } from '../libc.ts';
import { type Netlink, openNetlink } from '../netlink.ts';
import { createNetns } from '../netns.ts';

export type ScratchNetns = { fd: number; netlink: Netlink; [Symbol.dispose](): void };

/** Makes a namespace that goes away with `using`. */
export function scratchNetns(): ScratchNetns {
  const fd = createNetns();
  const netlink = openNetlink({ netnsFd: fd });
  return {
    fd,
    netlink,
    [Symbol.dispose]() {
      netlink.close();
      closeFd(fd);
    },
  };
}

/** Why tests with namespaces cannot run here, or undefined. */
export const netnsSkip = process.getuid?.() === 0 ? {} : { skip: 'needs root: makes network namespaces' };
