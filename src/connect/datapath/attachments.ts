// Where the datapath's programs hang. Attachments outlive the agent; on start each is given the new program in its
// place, so that no packet passes unjudged and nothing is attached twice.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { listPinnedLinks, pinName, unpin } from '../../kernel/bpf-link.ts';
import { programInfo } from '../../kernel/bpf-program.ts';
import {
  attachAtOnce,
  attachToDevice,
  detachFromDevice,
  probeAttachMethod,
  upgradeToTcx,
} from '../../kernel/device-attachment.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { listFilters } from '../../kernel/tc-filter.ts';
import { createAttachmentUpgrades } from './attachment-upgrades.ts';

/** Attachments of one node, by name. */
export interface Attachments {
  /** Attaches a program to a device's ingress, or replaces the one that hangs there. */
  attach(name: string, ifindex: number, programFd: number): void;
  /** Attaches to a device that was just made: with clsact at once, with tcx when there is time. */
  attachNew(name: string, ifindex: number, programFd: number): void;
  detach(name: string, ifindex: number): void;
  /** The same at a device's egress. */
  attachOut(name: string, ifindex: number, programFd: number): void;
  detachOut(name: string, ifindex: number): void;
  /** Pinned attachments, whose `ifindex` is 0 when the device is gone, and those that still wait for their link. */
  list(): { name: string; ifindex: number; programId: number }[];
  /** Forgets attachments of devices that are gone. */
  prune(): number;
  /** Leaves what is attached as it is. */
  close(): void;
}

/** Keeps pins in a folder of the bpf file system. */
export function createAttachments(
  netlink: Netlink,
  folder: string,
  onError: (message: string, error: unknown) => void,
): Attachments {
  mkdirSync(folder, { recursive: true });
  const pinPath = (name: string) => join(folder, pinName(name));
  const upgrades = createAttachmentUpgrades<Parameters<typeof attachAtOnce>[1]>({
    upgrade: (attachment, wanted) => upgradeToTcx(netlink, attachment, wanted),
    onError,
  });
  return {
    attach(name, ifindex, programFd) {
      attachToDevice(netlink, { ifindex, direction: 'ingress', pinPath: pinPath(name), programFd, name: 'weir' });
    },
    attachNew(name, ifindex, programFd) {
      const attachment = { ifindex, direction: 'ingress', pinPath: pinPath(name), programFd, name: 'weir' } as const;
      attachAtOnce(netlink, attachment);
      if (probeAttachMethod() === 'tcx') upgrades.add(name, attachment);
    },
    detach(name, ifindex) {
      upgrades.drop(name);
      detachFromDevice(netlink, { ifindex, direction: 'ingress', pinPath: pinPath(name) });
    },
    attachOut(name, ifindex, programFd) {
      attachToDevice(netlink, { ifindex, direction: 'egress', pinPath: pinPath(name), programFd, name: 'weir' });
    },
    detachOut(name, ifindex) {
      // Asked for on every device where nothing may ever have hung: a filter of somebody else's in its place stays.
      const isThere =
        existsSync(pinPath(name)) || listFilters(netlink, ifindex, 'egress').some((filter) => filter.name === 'weir');
      if (!isThere) return;
      detachFromDevice(netlink, { ifindex, direction: 'egress', pinPath: pinPath(name) });
    },
    list: () => [
      ...listPinnedLinks(folder).map(({ name, ifindex, programId }) => ({ name, ifindex, programId })),
      ...upgrades.waiting().map(([name, { ifindex, programFd }]) => ({
        name,
        ifindex,
        programId: programInfo(programFd).id,
      })),
    ],
    prune() {
      const dead = listPinnedLinks(folder).filter((link) => link.type === 'tcx' && link.ifindex === 0);
      for (const link of dead) if (existsSync(link.path)) unpin(link.path);
      return dead.length;
    },
    close: upgrades.close,
  };
}
