// Deletes devices on a thread of the pool: the kernel takes 15 ms for each, which nobody should have to wait for.

import { constants } from 'node:os';
import { KernelError } from './kernel-error.ts';
import { closeFd, MSG_DONTWAIT, recv, sendAsync } from './libc.ts';
import { deleteLinkMessage } from './links.ts';
import { answerErrno, openNetlinkSocket } from './netlink.ts';

/** Deletes devices one after another in the background. */
export interface LinkRemover {
  /** Resolves when the device is gone, whether it was there or not; rejects when the kernel refuses. */
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

  /** The kernel has answered by the time that it took the request. */
  function readAnswer(): number | undefined {
    let errno: number | undefined;
    for (let length = recv(fd, answers, MSG_DONTWAIT); length > 0; length = recv(fd, answers, MSG_DONTWAIT))
      errno = answerErrno(answers.subarray(0, length), sequence) ?? errno;
    return errno;
  }

  return {
    remove(ifindex) {
      underWay++;
      const work = last.then(async () => {
        const sent = await sendAsync(fd, deleteLinkMessage(ifindex, ++sequence));
        if (sent < 0) throw new Error(`the kernel took no request to delete device ${ifindex}`);
        const errno = readAnswer();
        if (errno === 0 || errno === constants.errno.ENODEV) return;
        if (errno === undefined) throw new Error(`the kernel did not answer the request to delete device ${ifindex}`);
        throw new KernelError('netlink', errno, `deleting device ${ifindex}`);
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
