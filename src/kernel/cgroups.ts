// Control groups, version 2: where the hierarchy is mounted.
import { readFileSync } from 'node:fs';

/** The mount point of cgroup v2 in this mount namespace (also beside v1, at …/unified); undefined when there is none. */
export function findCgroup2(): string | undefined {
  return parseCgroup2Mount(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** Finds the mount point in the text of a mountinfo file. The last mount on a path hides the earlier ones. */
export function parseCgroup2Mount(mountinfo: string): string | undefined {
  for (const line of mountinfo.split('\n').reverse()) {
    const [left = '', right = ''] = line.split(' - ');
    if (right.startsWith('cgroup2 ')) return left.split(' ')[4]?.replaceAll('\\040', ' ');
  }
  return undefined;
}
