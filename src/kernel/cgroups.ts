// Control groups, version 2: where the hierarchy is mounted, and directories in it.
import { mkdirSync, openSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

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

/** The number by which BPF programs know a cgroup (bpf_get_current_cgroup_id): its directory's inode. */
export function cgroupId(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

/** Opens a cgroup directory, to attach programs to it; the caller closes the descriptor. */
export function openCgroup(path: string): number {
  return openSync(path, 'r');
}

/** Makes a cgroup below `parent` and returns its path; one that exists is used. */
export function createCgroup(parent: string, name: string): string {
  const path = join(parent, name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** Removes an empty cgroup. */
export function deleteCgroup(path: string): void {
  rmdirSync(path);
}

/** Moves a process into a cgroup. */
export function joinCgroup(path: string, pid: number): void {
  writeFileSync(join(path, 'cgroup.procs'), String(pid));
}
