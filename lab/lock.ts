// One command at a time changes a lab.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { WeirError } from '../src/core/errors.ts';
import { identify, isAlive, recall } from './process-identity.ts';
import { labDir, paths } from './state.ts';

/** Runs `work` while no other command may start or end this lab. A lock of a command that has died does not count. */
export async function withLock<T>(lab: string, work: () => Promise<T>): Promise<T> {
  const file = paths.lock(lab);
  mkdirSync(labDir(lab), { recursive: true, mode: 0o755 });
  const mine = JSON.stringify(identify(process.pid));
  try {
    writeFileSync(file, mine, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const holder = recall(file);
    if (holder !== undefined && isAlive(holder)) {
      throw new WeirError('LAB_BUSY', `process ${holder.pid} is starting or ending lab "${lab}"`);
    }
    writeFileSync(file, mine);
  }
  try {
    return await work();
  } finally {
    rmSync(file, { force: true });
  }
}
