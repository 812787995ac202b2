// The kernel gives a user a small number of inotify instances for the whole machine, and kubelets take most of them.
// When they run out, parts of Kubernetes fail one by one with "too many open files": better said before.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { WeirError } from '../src/core/errors.ts';

/** What a control plane and a node with kubelet and containerd hold, as counted on running ones. */
const instancesPer = { controlPlane: 14, node: 10 } as const;

/** Throws when the instances that are left do not suffice for so many nodes with kubelet. */
export function checkInotify(nodesWithKubelet: number): void {
  const limit = Number(readFileSync('/proc/sys/fs/inotify/max_user_instances', 'utf8'));
  const needed = instancesPer.controlPlane + nodesWithKubelet * instancesPer.node;
  const used = usedInstances();
  if (used + needed <= limit) return;
  throw new WeirError(
    'LAB_MACHINE_UNSUPPORTED',
    `${used} of this machine's ${limit} inotify instances are in use, and this lab needs about ${needed}`,
    'End another lab (`weir lab list`), use fewer nodes, or raise fs.inotify.max_user_instances with sysctl.',
  );
}

function usedInstances(): number {
  let used = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) === 'anon_inode:inotify') used++;
      }
    } catch {
      // It ended while we looked.
    }
  }
  return used;
}
