// Deletions that the plugin wrote down while the agent was away: done at start, and looked for now and then, since one
// may have been written in the moment before the socket was there.
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { errorText } from '../../core/errors.ts';
import type { Log } from '../log.ts';

/** Carries out what is in `folder`; answers how many there were. */
export async function doPendingDeletes(
  folder: string,
  remove: (containerId: string, ifname: string) => Promise<boolean>,
  log: Log,
): Promise<number> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  let done = 0;
  for (const name of readdirSync(folder)) {
    if (name.endsWith('.tmp')) continue;
    const path = join(folder, name);
    try {
      const [containerId, ifname] = readFileSync(path, 'utf8').split('\n');
      if (!containerId || !ifname) log.warn('a deletion that was written down cannot be read', { path });
      else {
        const found = await remove(containerId, ifname);
        log.info('deleted a pod that went while the agent was away', { container: containerId, found });
      }
      rmSync(path, { force: true });
      done++;
    } catch (error) {
      // It stays written down, and holds up no other.
      log.warn('a deletion that was written down failed: it is tried again', { path, error: errorText(error) });
    }
  }
  return done;
}
