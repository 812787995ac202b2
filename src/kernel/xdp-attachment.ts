// Hooks a program to a device's XDP by a pinned link, which outlives the agent and exchanges the program without a gap.
import { existsSync, unlinkSync } from 'node:fs';
import { attachXdp, linkInfo, openPinnedLink, pinLink, replaceProgram } from './bpf-link.ts';
import { isErrno } from './kernel-error.ts';
import { closeFd } from './libc.ts';

/** Where an XDP program runs: in the driver, or just behind it. */
export type XdpMode = 'native' | 'generic';

/** Makes sure that a program hangs at a device. Idempotent: a live attachment only gets the program. */
export function attachXdpPinned(options: {
  readonly ifindex: number;
  readonly programFd: number;
  readonly mode: XdpMode;
  /** On bpffs; its directory exists. */
  readonly pinPath: string;
}): void {
  if (updatePinned(options)) return;
  const linkFd = attachXdp(options);
  try {
    pinLink(linkFd, options.pinPath);
  } finally {
    closeFd(linkFd);
  }
}

/** Ends an attachment; nothing when there is none. */
export function detachXdpPinned(pinPath: string): void {
  if (existsSync(pinPath)) unlinkSync(pinPath);
}

function updatePinned(options: Parameters<typeof attachXdpPinned>[0]): boolean {
  let linkFd: number;
  try {
    linkFd = openPinnedLink(options.pinPath);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
  try {
    const info = linkInfo(linkFd);
    const fits = info.type === 'xdp' && info.ifindex === options.ifindex;
    if (fits) replaceProgram(linkFd, options.programFd);
    else unlinkSync(options.pinPath);
    return fits;
  } finally {
    closeFd(linkFd);
  }
}
