// Loads the programs of a node once, with its pinned maps, and hangs them where they belong.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { type LoadedObject, type LoadOptions, loadObject } from '../../kernel/bpf-object.ts';
import type { DatapathConstants } from '../../kernel/datapath.gen.ts';
import { type MappedArray, mmapArray } from '../../kernel/mmap-array.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { openRing, type RingBuffer } from '../../kernel/ring-buffer.ts';
import { runProgram } from '../../kernel/run-program.ts';
import { type Attachments, createAttachments } from './attachments.ts';
import type { DatapathMaps } from './datapath-writer.ts';

/** Settings of a node's datapath. */
export interface DatapathOptions {
  readonly netlink: Netlink;
  /** Folder with pod.bpf.o, host.bpf.o and sweep.bpf.o. */
  readonly objects: string;
  /** Folder on the bpf file system; maps and attachments are pinned below it. */
  readonly pinDir: string;
  readonly constants: DatapathConstants;
  readonly maxEntries?: Record<string, number>;
  readonly onError?: (message: string, error: unknown) => void;
}

/** The programs and maps of a node. */
export interface Datapath {
  readonly maps: DatapathMaps;
  readonly attachments: Attachments;
  readonly ring: RingBuffer;
  /** The map with this name, for reading. */
  map(name: string): BpfMap;
  /** The descriptor of a program, for test runs. */
  programFd(name: string): number;
  attachPod(ifindex: number): void;
  /** The same for a device that was just made: by the quickest means, exchanged for the best one later. */
  attachNewPod(ifindex: number): void;
  detachPod(ifindex: number): void;
  attachDevice(name: string, ifindex: number): void;
  /** Looks at what leaves over a device, too, or no longer: the host firewall's other half. */
  attachGuard(name: string, ifindex: number): void;
  detachGuard(name: string, ifindex: number): void;
  /** Whether what arrives for the node itself is looked at. It is until told otherwise. */
  guardArrivals(on: boolean): void;
  attachNode(ifindex: number): void;
  /** Ends connections that went quiet; answers how many were looked at and ended. */
  sweep(): { seen: number; ended: number };
  /** What each program is and what the verifier went through for it. */
  programs(): { name: string; id: number; verifiedInstructions: number; jitedBytes: number }[];
  /** Maps whose layout had changed since the last run, so that their contents were lost. */
  readonly replaced: readonly { map: string; why: string }[];
  readonly adopted: readonly string[];
  close(): void;
}

const u32Bytes = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);

/** What is to be loaded, in the order in which createDatapath() takes it. */
export function datapathObjects(options: DatapathOptions): LoadOptions[] {
  const constants = Object.fromEntries(Object.entries(options.constants).filter(([, value]) => value !== undefined));
  return ['pod', 'host', 'sweep'].map((name) => {
    const path = join(options.objects, `${name}.bpf.o`);
    if (!existsSync(path)) throw new WeirError('BPF_OBJECT_MISSING', `${path} does not exist`);
    return { path, pinDir: join(options.pinDir, 'maps'), constants, maxEntries: options.maxEntries };
  });
}

/** Loads the objects, adopting the maps that are pinned. */
export function loadDatapath(options: DatapathOptions): Datapath {
  return createDatapath(options, datapathObjects(options).map(loadObject));
}

/** The datapath of objects that are loaded. */
export function createDatapath(options: DatapathOptions, objects: readonly LoadedObject[]): Datapath {
  const [pod, host, sweep] = objects as [LoadedObject, LoadedObject, LoadedObject];
  const map = (name: string): BpfMap => {
    for (const object of objects) if (object.maps.has(name)) return object.map(name);
    throw new Error(`the datapath has no map ${name}`);
  };
  // What the hooks of the host go on with; adopted links run with the programs of this load from here on.
  map('host_programs').update(u32Bytes(0), u32Bytes(host.program('balance_host').fd));
  const guardArrivals = (on: boolean): void => {
    if (on) map('host_programs').update(u32Bytes(1), u32Bytes(host.program('guard_in').fd));
    else map('host_programs').delete(u32Bytes(1));
  };
  guardArrivals(true);
  const attachments = createAttachments(options.netlink, join(options.pinDir, 'links'), options.onError ?? (() => {}));
  const epochs: MappedArray = mmapArray(map('epochs'));
  const ring = openRing(map('events'));
  const podLink = (ifindex: number) => `pod-${ifindex}`;
  return {
    maps: {
      ipcache: map('ipcache'),
      ipcachePrefix: map('ipcache_prefix'),
      policyPeer: map('policy_peer'),
      policyPorts: map('policy_ports'),
      endpoints: map('endpoints'),
      epochs,
    },
    attachments,
    ring,
    map,
    programFd(name) {
      for (const object of objects) if (object.programs.has(name)) return object.program(name).fd;
      throw new Error(`the datapath has no program ${name}`);
    },
    attachPod: (ifindex) => attachments.attach(podLink(ifindex), ifindex, pod.program('pod').fd),
    attachNewPod: (ifindex) => attachments.attachNew(podLink(ifindex), ifindex, pod.program('pod').fd),
    detachPod: (ifindex) => attachments.detach(podLink(ifindex), ifindex),
    attachDevice: (name, ifindex) => attachments.attach(`device-${name}`, ifindex, host.program('device').fd),
    attachGuard: (name, ifindex) => attachments.attachOut(`guard-${name}`, ifindex, host.program('guard_out').fd),
    detachGuard: (name, ifindex) => attachments.detachOut(`guard-${name}`, ifindex),
    guardArrivals,
    attachNode: (ifindex) => attachments.attach('node', ifindex, host.program('node').fd),
    sweep() {
      const result = new Uint8Array(8);
      runProgram(sweep.program('sweep').fd, result);
      const view = new DataView(result.buffer);
      return { seen: view.getUint32(0, true), ended: view.getUint32(4, true) };
    },
    programs: () =>
      objects.flatMap((object) =>
        [...object.programs].map(([name, program]) => ({
          name,
          id: program.id,
          verifiedInstructions: program.verifiedInsns,
          jitedBytes: program.jitedBytes,
        })),
      ),
    replaced: objects.flatMap((object) => [...object.replaced]),
    adopted: pod.adopted,
    close() {
      attachments.close();
      ring.close();
      epochs.close();
      for (const object of objects) object.close();
    },
  };
}
