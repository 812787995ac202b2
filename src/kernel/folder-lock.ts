// A lock that one process holds on a folder for as long as it lives: the kernel lets go of it, however the process ends.
import { closeSync, constants, openSync } from 'node:fs';
import { lockFile } from './libc.ts';

/** A lock that is held. */
export interface FolderLock {
  close(): void;
}

const tryAgainMs = 50;

/** Takes the lock of a folder; undefined when another process still has it after `waitMs`. */
export async function lockFolder(path: string, waitMs: number): Promise<FolderLock | undefined> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  const deadlineMs = Date.now() + waitMs;
  try {
    for (;;) {
      if (lockFile(fd)) return { close: () => closeSync(fd) };
      if (Date.now() >= deadlineMs) break;
      await new Promise((resolve) => setTimeout(resolve, tryAgainMs));
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return undefined;
}
