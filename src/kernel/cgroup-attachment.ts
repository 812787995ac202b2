// Hooks a program to a control group by a pinned link, which outlives the agent and exchanges the program without a gap.
import { openSync, statSync, unlinkSync } from 'node:fs';
import { linkInfo, openPinnedLink, pinLink, replaceProgram } from './bpf-link.ts';
import { BpfAttr, BpfCommand, bpf, objectInfo } from './bpf-syscall.ts';
import { isErrno } from './kernel-error.ts';
import { closeFd } from './libc.ts';

/** Attach types of uapi/linux/bpf.h, by the section that a program is compiled into. */
const cgroupAttachTypes = {
  sockops: 3,
  'cgroup/bind4': 8,
  'cgroup/bind6': 9,
  'cgroup/connect4': 10,
  'cgroup/connect6': 11,
  'cgroup/post_bind4': 12,
  'cgroup/post_bind6': 13,
  'cgroup/sendmsg4': 14,
  'cgroup/sendmsg6': 15,
  'cgroup/recvmsg4': 19,
  'cgroup/recvmsg6': 20,
  'cgroup/getpeername4': 29,
  'cgroup/getpeername6': 30,
} as const;

/** What can be hooked. */
export type CgroupHook = keyof typeof cgroupAttachTypes;

/**
 * Makes sure that a program hangs in a control group (its folder on cgroup2; all groups below it are meant too).
 * Idempotent: a live attachment only gets the program, one of another kind or of a group that is gone is replaced.
 */
export function attachToCgroup(options: {
  readonly cgroup: string;
  readonly hook: CgroupHook;
  readonly programFd: number;
  /** On bpffs; its directory exists. */
  readonly pinPath: string;
}): 'attached' | 'replaced' {
  const groupFd = openSync(options.cgroup, 'r');
  try {
    if (updatePinned(options)) return 'replaced';
    const attr = new BpfAttr(64)
      .u32(0, options.programFd)
      .u32(4, groupFd)
      .u32(8, cgroupAttachTypes[options.hook])
      .u32(12, 0);
    const linkFd = bpf(BpfCommand.linkCreate, attr, 'LINK_CREATE', `${options.hook} of ${options.cgroup}`);
    try {
      pinLink(linkFd, options.pinPath);
    } finally {
      closeFd(linkFd);
    }
    return 'attached';
  } finally {
    closeFd(groupFd);
  }
}

/** Puts the program into the pinned link; false when there is none, or one that does not fit, which is then gone. */
function updatePinned(options: Parameters<typeof attachToCgroup>[0]): boolean {
  let linkFd: number;
  try {
    linkFd = openPinnedLink(options.pinPath);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
  try {
    const info = objectInfo(linkFd, 64);
    const groupId = statSync(options.cgroup, { bigint: true }).ino; // the kernel's number of a group is its inode's
    const fits =
      linkInfo(linkFd).type === 'cgroup' &&
      info.readU64(16) === groupId &&
      info.readU32(24) === cgroupAttachTypes[options.hook];
    if (fits) replaceProgram(linkFd, options.programFd);
    else unlinkSync(options.pinPath);
    return fits;
  } finally {
    closeFd(linkFd);
  }
}
