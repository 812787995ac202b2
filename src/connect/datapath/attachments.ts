// Where the datapath's programs hang. Attachments outlive the agent; on start each is given the new program in its
// place, so that no packet passes unjudged and nothing is attached twice.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { listPinnedLinks, unpin } from '../../kernel/bpf-link.ts';
import { attachToDevice, attachToNewDevice, detachFromDevice } from '../../kernel/device-attachment.ts';
import type { Netlink } from '../../kernel/netlink.ts';

/** Attachments of one node, by name. */
export interface Attachments {
  /** Attaches a program to a device's ingress, or replaces the one that hangs there. */
  attach(name: string, ifindex: number, programFd: number): void;
  /** Attaches to a device that was just made, without holding up other work. */
  attachNew(name: string, ifindex: number, programFd: number): Promise<void>;
  detach(name: string, ifindex: number): void;
  /** Pinned attachments; `ifindex` is 0 when the device is gone. */
  list(): { name: string; ifindex: number; programId: number }[];
  /** Forgets attachments of devices that are gone. */
  prune(): number;
}

/** Keeps pins in a folder of the bpf file system. */
export function createAttachments(netlink: Netlink, folder: string): Attachments {
  mkdirSync(folder, { recursive: true });
  const pinPath = (name: string) => join(folder, name);
  return {
    attach(name, ifindex, programFd) {
      attachToDevice(netlink, { ifindex, direction: 'ingress', pinPath: pinPath(name), programFd, name: 'weir' });
    },
    attachNew: (name, ifindex, programFd) =>
      attachToNewDevice(netlink, { ifindex, direction: 'ingress', pinPath: pinPath(name), programFd, name: 'weir' }),
    detach(name, ifindex) {
      detachFromDevice(netlink, { ifindex, direction: 'ingress', pinPath: pinPath(name) });
    },
    list: () => listPinnedLinks(folder).map(({ name, ifindex, programId }) => ({ name, ifindex, programId })),
    prune() {
      const dead = listPinnedLinks(folder).filter((link) => link.type === 'tcx' && link.ifindex === 0);
      for (const link of dead) if (existsSync(link.path)) unpin(link.path);
      return dead.length;
    },
  };
}
