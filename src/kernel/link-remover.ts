// Deletes devices on a thread of the pool: the kernel takes 15 ms for each, which nobody should have to wait for.

import { closeFd, MSG_DONTWAIT, recv, sendAsync } from './libc.ts';
import { deleteLinkMessage } from './links.ts';
import { openNetlinkSocket } from './netlink.ts';

/** Deletes devices one after another in the background. */
export interface LinkRemover {
  /** Resolves when the device is gone; whether it was there does not matter. */
  remove(ifindex: number): Promise<void>;
  /** Resolves when nothing is under way; at once when nothing was. Answers whether anything was. */
  settled(): Promise<boolean>;
  close(): void;
}

/** Works in the network namespace that the process is in now. */
export function createLinkRemover(): LinkRemover {
  const fd = openNetlinkSocket(undefined);
  const answers = new Uint8Array(4096);
  let last: Promise<unknown> = Promise.resolve();
  let sequence = 0;
  let underWay = 0;
  return {
    remove(ifindex) {
      underWay++;
      const work = last.then(async () => {
        const sent = await sendAsync(fd, deleteLinkMessage(ifindex, ++sequence));
        if (sent < 0) throw new Error(`the kernel took no request to delete device ${ifindex}`);
        while (recv(fd, answers, MSG_DONTWAIT) > 0); // Acknowledged, or ENODEV: it is gone either way.
      });
      last = work
        .catch(() => {})
        .then(() => {
          underWay--;
        });
      return work;
    },
    async settled() {
      const any = underWay > 0;
      while (underWay > 0) await last;
      return any;
    },
    close: () => closeFd(fd),
  };
}
