// Deletes devices on a thread of the pool: the kernel takes 15 ms for each, which nobody should have to wait for.

import { closeFd, MSG_DONTWAIT, recv, sendAsync } from './libc.ts';
import { deleteLinkMessage } from './links.ts';
import { openNetlinkSocket } from './netlink.ts';

/** Deletes devices one after another in the background. */
export interface LinkRemover {
  /** Resolves when the device is gone; whether it was there does not matter. */
  remove(ifindex: number): Promise<void>;
  close(): void;
}

/** Works in the network namespace that the process is in now. */
export function createLinkRemover(): LinkRemover {
  const fd = openNetlinkSocket(undefined);
  const answers = new Uint8Array(4096);
  let last: Promise<unknown> = Promise.resolve();
  let sequence = 0;
  return {
    remove(ifindex) {
      const work = last.then(async () => {
        await sendAsync(fd, deleteLinkMessage(ifindex, ++sequence));
        while (recv(fd, answers, MSG_DONTWAIT) > 0); // Acknowledgements and ENODEV: both mean that it is gone.
      });
      last = work.catch(() => {});
      return work;
    },
    close: () => closeFd(fd),
  };
}
