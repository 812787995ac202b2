// Control groups of a lab: one below weir-LAB for each host, in every hierarchy the machine has. They hold the lab's
// processes, so that ending a lab ends all of them and nobody else's.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { identify, signalProcess } from './process-identity.ts';
import { waitFor } from './wait.ts';

const root = '/sys/fs/cgroup';

/** How this machine mounts its control groups. */
export type CgroupLayout = 'unified' | 'hybrid';

/** Whether there is one hierarchy (v2), or v1 controllers with a v2 hierarchy beside them. */
export function cgroupLayout(): CgroupLayout {
  if (existsSync(join(root, 'cgroup.controllers'))) return 'unified';
  if (existsSync(join(root, 'unified/cgroup.procs')) && existsSync(join(root, 'memory'))) return 'hybrid';
  throw new WeirError(
    'LAB_MACHINE_UNSUPPORTED',
    `control groups are mounted in a way the lab does not know: ${root} is neither v2, nor v1 with ${root}/unified`,
  );
}

/** The roots of all hierarchies. */
function hierarchies(): string[] {
  if (cgroupLayout() === 'unified') return [root];
  const seen = new Set<string>();
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    // Links such as cpu -> cpu,cpuacct name a hierarchy that is there already.
    if (entry.isDirectory() && existsSync(join(root, entry.name, 'cgroup.procs'))) seen.add(join(root, entry.name));
  }
  return [...seen];
}

/** The group of a lab, or of one of its hosts, in the hierarchy that all processes are in. */
function mainGroup(lab: string, host?: string): string {
  const top = cgroupLayout() === 'unified' ? root : join(root, 'unified');
  return join(top, `weir-${lab}`, host ?? '');
}

/** The groups that a process of this host joins, one per hierarchy. */
export function hostGroups(lab: string, host: string): string[] {
  return hierarchies().map((each) => join(each, `weir-${lab}`, host));
}

/** The groups that a process joins that is started in a running node. */
export function enterGroups(lab: string, host: string): string[] {
  if (cgroupLayout() === 'hybrid') return hostGroups(lab, host);
  // With v2 alone a group that hands controllers down has no processes: the node's own are in a leaf beside its pods.
  const leaf = join(mainGroup(lab, host), 'init');
  return existsSync(leaf) ? [leaf] : hostGroups(lab, host);
}

/** Makes the groups of a host. */
export function makeGroups(lab: string, host: string): void {
  const layout = cgroupLayout();
  for (const group of hostGroups(lab, host)) {
    const above = join(group, '..');
    for (const [folder, parent] of [
      [above, join(above, '..')],
      [group, above],
    ] as const) {
      if (layout === 'unified') delegateControllers(parent);
      mkdirSync(folder, { recursive: true });
      // A new v1 cpuset is empty, and nothing can join it until it has CPUs and memory.
      for (const file of ['cpuset.cpus', 'cpuset.mems']) {
        if (layout === 'unified' || !existsSync(join(folder, file))) continue;
        writeFileSync(join(folder, file), readFileSync(join(parent, file)));
      }
    }
  }
}

/** v2: what is below may use all controllers that are here. */
function delegateControllers(group: string): void {
  const controllers = readFileSync(join(group, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean);
  for (const controller of controllers) {
    try {
      writeFileSync(join(group, 'cgroup.subtree_control'), `+${controller}`);
    } catch {
      // Some controllers cannot be handed down here; kubelet says so if it needs one of them.
    }
  }
}

/** All processes in a group and in the groups below it. */
function processesBelow(group: string): number[] {
  if (!existsSync(group)) return [];
  const folders = [
    group,
    ...readdirSync(group, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name)),
  ];
  return folders.flatMap((folder) => {
    try {
      return readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  });
}

/** The processes of a lab, or of one of its hosts. */
function labProcesses(lab: string, host?: string): number[] {
  return processesBelow(mainGroup(lab, host)).filter((pid) => pid > 0);
}

/** Kills everything in the groups of a lab, or of one of its hosts, and removes the groups. */
export async function removeGroups(lab: string, host?: string): Promise<void> {
  const what = host === undefined ? `lab ${lab}` : `${lab}/${host}`;
  await waitFor(
    `the processes of ${what} to end`,
    async () => {
      // By pid and start time: between reading the list and the signal a pid may get another owner.
      const identities = labProcesses(lab, host).map(identify);
      for (const each of identities) signalProcess(each, 'SIGKILL');
      return identities.every((each) => each === undefined);
    },
    20_000,
    20,
  );
  await waitFor(
    `the control groups of ${what} to be removed`,
    async () => hierarchies().every((each) => removeTree(join(each, `weir-${lab}`, host ?? ''))),
    20_000,
    20,
  );
}

/** Removes a group and all below it; false when something is still in use. */
function removeTree(group: string): boolean {
  if (!existsSync(group)) return true;
  let all = true;
  for (const entry of readdirSync(group, { withFileTypes: true })) {
    if (entry.isDirectory()) all = removeTree(join(group, entry.name)) && all;
  }
  try {
    rmdirSync(group);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return false;
  }
  return all;
}
