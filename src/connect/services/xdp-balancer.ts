// The balancer in the drivers of the node's devices. Where a device has none of it, tc does the same later.
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import { pinName } from '../../kernel/bpf-link.ts';
import { type LoadedObject, type LoadedProgram, loadObject } from '../../kernel/bpf-object.ts';
import type { DatapathConstants } from '../../kernel/datapath.gen.ts';
import { listLinks } from '../../kernel/links.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { attachXdpPinned, detachXdpPinned } from '../../kernel/xdp-attachment.ts';

/** `auto`: in the driver of physical devices, nowhere else. */
export type XdpChoice = 'auto' | 'native' | 'generic' | 'off';

/** The program, loaded when the first device needs it. */
export interface XdpBalancer {
  programs(): ReadonlyMap<string, LoadedProgram>;
  /** Hangs the program at these devices and takes it from all others; answers why a device has to do without. */
  follow(devices: ReadonlyMap<string, number>): { device: string; error: unknown }[];
  close(): void;
}

const linkPrefix = 'xdp-';

/** Adopts the maps and attachments that are pinned. */
export function createXdpBalancer(options: {
  readonly netlink: Netlink;
  readonly objects: string;
  readonly pinDir: string;
  readonly choice: XdpChoice;
  readonly constants?: DatapathConstants;
  readonly maxEntries?: Record<string, number>;
}): XdpBalancer {
  const { choice } = options;
  const folder = join(options.pinDir, 'links');
  mkdirSync(folder, { recursive: true });
  let object: LoadedObject | undefined;
  const load = (): LoadedObject => {
    const path = join(options.objects, 'xdp.bpf.o');
    if (!existsSync(path)) throw new WeirError('BPF_OBJECT_MISSING', `${path} does not exist`);
    return loadObject({
      path,
      pinDir: join(options.pinDir, 'maps'),
      constants: { ...options.constants },
      maxEntries: options.maxEntries,
    });
  };
  const mode = choice === 'generic' ? 'generic' : 'native';
  /** The mode is part of the name: a link cannot change it. */
  const pinOf = (device: string) => `${linkPrefix}${mode}-${pinName(device)}`;
  /** Physical devices have no kind. */
  const wanted = (device: string) =>
    choice === 'auto'
      ? listLinks(options.netlink).some((link) => link.name === device && link.kind === '')
      : choice !== 'off';
  return {
    programs: () => object?.programs ?? new Map(),
    follow(devices) {
      const failed: { device: string; error: unknown }[] = [];
      const taken = new Map([...devices].filter(([device]) => wanted(device)));
      const kept = new Set([...taken.keys()].map(pinOf));
      for (const name of readdirSync(folder))
        if (name.startsWith(linkPrefix) && !kept.has(name)) detachXdpPinned(join(folder, name));
      for (const [device, ifindex] of taken) {
        try {
          object ??= load();
          const programFd = object.program('balance_xdp').fd;
          attachXdpPinned({ ifindex, programFd, mode, pinPath: join(folder, pinOf(device)) });
        } catch (error) {
          failed.push({ device, error });
        }
      }
      return failed;
    },
    close: () => object?.close(),
  };
}
