// Programs on tracepoints, kept by a pinned link, and programs that list what there is.
import { readSync, unlinkSync } from 'node:fs';
import { pinLink } from './bpf-link.ts';
import { BpfAttr, BpfCommand, bpf } from './bpf-syscall.ts';
import { closeFd } from './libc.ts';

const BPF_TRACE_ITER = 28;

/**
 * Hangs a program where it says it belongs. The link is pinned and outlives the process; what an earlier run pinned there
 * goes only when the new one is in place, so that for a moment both see what happens.
 */
export function attachTracepoint(programFd: number, pinPath: string): void {
  const attr = new BpfAttr(16).u64(0, 0).u32(8, programFd);
  const linkFd = bpf(BpfCommand.rawTracepointOpen, attr, 'RAW_TRACEPOINT_OPEN', pinPath);
  try {
    try {
      unlinkSync(pinPath);
    } catch {
      // There was none.
    }
    pinLink(linkFd, pinPath);
  } finally {
    closeFd(linkFd);
  }
}

/** Runs a program over everything that it lists; answers with what it wrote. */
export function runIterator(programFd: number): Uint8Array {
  const attr = new BpfAttr(64).u32(0, programFd).u32(8, BPF_TRACE_ITER);
  const linkFd = bpf(BpfCommand.linkCreate, attr, 'LINK_CREATE', 'iterator');
  try {
    const fd = bpf(BpfCommand.iterCreate, new BpfAttr(8).u32(0, linkFd), 'ITER_CREATE');
    try {
      const parts: Uint8Array[] = [];
      for (;;) {
        const part = new Uint8Array(64 * 1024);
        const got = readSync(fd, part);
        if (got === 0) return Buffer.concat(parts);
        parts.push(part.subarray(0, got));
      }
    } finally {
      closeFd(fd);
    }
  } finally {
    closeFd(linkFd);
  }
}
