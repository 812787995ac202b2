// The programs that translate services in the system call, on the node's control group: all its pods and itself.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { type LoadedProgram, loadObject } from '../../kernel/bpf-object.ts';
import { attachToCgroup, type CgroupHook } from '../../kernel/cgroup-attachment.ts';
import { netnsCookie } from '../../kernel/netns.ts';

/** The loaded programs and the maps of services. */
export interface SocketHooks {
  readonly programs: ReadonlyMap<string, LoadedProgram>;
  map(name: string): BpfMap;
  /** Hangs the programs into a control group, in place of those of an earlier run. */
  attach(cgroup: string): void;
  close(): void;
}

/** Loads the programs, adopting the pinned maps. The calling thread is in the node's network namespace. */
export function loadSocketHooks(options: {
  readonly objects: string;
  readonly pinDir: string;
  readonly maxEntries?: Record<string, number>;
}): SocketHooks {
  const path = join(options.objects, 'sock.bpf.o');
  if (!existsSync(path)) throw new WeirError('BPF_OBJECT_MISSING', `${path} does not exist`);
  const object = loadObject({
    path,
    pinDir: join(options.pinDir, 'maps'),
    constants: { node_netns_cookie: netnsCookie() },
    maxEntries: options.maxEntries,
  });
  return {
    programs: object.programs,
    map: (name) => object.map(name),
    attach(cgroup) {
      const folder = join(options.pinDir, 'sockets');
      mkdirSync(folder, { recursive: true });
      for (const [name, { fd, section }] of object.programs)
        attachToCgroup({ cgroup, hook: section as CgroupHook, programFd: fd, pinPath: join(folder, name) });
    },
    close: () => object.close(),
  };
}
