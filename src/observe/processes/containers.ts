// Which container a control group is: by the folders that container runtimes make on cgroup v2, whose inodes are the
// numbers that the kernel tells.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A container by its control group. */
export interface ContainerGroup {
  readonly containerId: string;
  readonly podUid: string;
}

/** Finds containers. */
export interface ContainerGroups {
  /** By the number of the group; undefined when it is none of a container. */
  byId(group: number): ContainerGroup | undefined;
}

const deepest = 6;

/** Looks below `root`, the mount of cgroup v2. */
export function createContainerGroups(root: string | undefined): ContainerGroups {
  let known = new Map<number, ContainerGroup>();
  /** Groups that are none of a container's: they are not looked for again and again. */
  const others = new Set<number>();

  function walk(path: string, depth: number, into: Map<number, ContainerGroup>): void {
    if (depth > deepest) return;
    let names: string[];
    try {
      names = readdirSync(path, { withFileTypes: true })
        .filter((each) => each.isDirectory())
        .map((each) => each.name);
    } catch {
      return; // It went meanwhile.
    }
    for (const name of names) {
      const child = join(path, name);
      const found = parseContainerGroup(child);
      if (found !== undefined) {
        const id = inodeOf(child);
        if (id !== undefined) into.set(id, found);
        // Processes may be in groups that the container made for itself.
        walkInside(child, found, into);
      } else if (depth > 0 || /kubepods/.test(name)) walk(child, depth + 1, into);
    }
  }

  function walkInside(path: string, found: ContainerGroup, into: Map<number, ContainerGroup>, depth = 0): void {
    if (depth > deepest) return;
    try {
      for (const each of readdirSync(path, { withFileTypes: true })) {
        if (!each.isDirectory()) continue;
        const child = join(path, each.name);
        const id = inodeOf(child);
        if (id !== undefined) into.set(id, found);
        walkInside(child, found, into, depth + 1);
      }
    } catch {
      // It went meanwhile.
    }
  }

  return {
    byId(group) {
      const found = known.get(group);
      if (found !== undefined || root === undefined || others.has(group)) return found;
      const next = new Map<number, ContainerGroup>();
      walk(root, 0, next);
      known = next;
      if (!known.has(group)) {
        if (others.size > 10_000) others.clear();
        others.add(group);
      }
      return known.get(group);
    },
  };
}

/** Reads the pod and the container out of a group's path, as cgroupfs and systemd drivers write it. */
export function parseContainerGroup(path: string): ContainerGroup | undefined {
  const match =
    /pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?\/(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?/.exec(
      path,
    );
  if (match === null) return undefined;
  return { podUid: match[1]!.replaceAll('_', '-'), containerId: match[2]! };
}

function inodeOf(path: string): number | undefined {
  try {
    return statSync(path).ino;
  } catch {
    return undefined;
  }
}
