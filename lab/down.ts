// Ends a lab and removes everything it has made; also what is left of one that died half-made.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { removeGroups } from './cgroups.ts';
import { attempt } from './command.ts';
import { withLock } from './lock.ts';
import { networkHosts, removeHost } from './network.ts';
import { checkLabName, contextFile, labDir, labNames } from './state.ts';

/** Ends a lab. False when there was nothing of it. */
export async function downLab(lab: string): Promise<boolean> {
  checkLabName(lab);
  if (!existsSync(labDir(lab)) && networkHosts(lab).length === 0) return false;
  await withLock(lab, () => removeLab(lab));
  return true;
}

/** Ends all labs and returns their names. */
export async function downAllLabs(): Promise<string[]> {
  const labs = labNames();
  for (const lab of labs) await downLab(lab);
  return labs;
}

/** Removes processes, namespaces, control groups and files of a lab. The caller holds the lab's lock. */
export async function removeLab(lab: string): Promise<void> {
  rmSync(contextFile(lab), { force: true });
  await removeGroups(lab);
  for (const host of networkHosts(lab)) await removeHost(lab, host);
  // A node's mounts go with its namespace. Only a stranger's hand could have mounted something here.
  for (const mountPoint of mountPointsBelow(labDir(lab), readFileSync('/proc/self/mountinfo', 'utf8'))) {
    await attempt(['umount', '--lazy', mountPoint]);
  }
  rmSync(labDir(lab), { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}

/** The mount points below a folder, the innermost first, from the text of /proc/self/mountinfo. */
export function mountPointsBelow(folder: string, mountInfo: string): string[] {
  return mountInfo
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replace(/\\040/g, ' '))
    .filter((point) => point.startsWith(`${folder}/`))
    .reverse();
}
