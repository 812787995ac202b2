// The programs that serve services in the system call, on the node's control group: all its pods and itself.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import type { LoadedObject, LoadedProgram, LoadOptions } from '../../kernel/bpf-object.ts';
import { attachToCgroup, type CgroupHook } from '../../kernel/cgroup-attachment.ts';
import { netnsCookie } from '../../kernel/netns.ts';
import { pidNamespace } from '../../kernel/proc.ts';

/** The loaded programs and the maps of services. */
export interface SocketHooks {
  readonly programs: ReadonlyMap<string, LoadedProgram>;
  map(name: string): BpfMap;
  /** Hangs the programs into a control group, in place of those of an earlier run. */
  attach(cgroup: string): void;
  close(): void;
}

/** Where the compiled programs are, and where their maps are pinned. */
export interface SocketHooksOptions {
  readonly objects: string;
  readonly pinDir: string;
  readonly maxEntries?: Record<string, number>;
  /** The node's own sockets may not bind ports that lead to services. */
  readonly bindProtection: boolean;
}

/** What is to be loaded. The calling thread is in the node's network namespace. */
export function socketHooksObject(options: SocketHooksOptions): LoadOptions {
  const path = join(options.objects, 'sock.bpf.o');
  if (!existsSync(path)) throw new WeirError('BPF_OBJECT_MISSING', `${path} does not exist`);
  return {
    path,
    pinDir: join(options.pinDir, 'maps'),
    constants: {
      node_netns_cookie: netnsCookie(),
      node_pid_namespace: pidNamespace(),
      bind_protection: options.bindProtection ? 1 : 0,
    },
    maxEntries: options.maxEntries,
  };
}

/** The hooks of an object that is loaded. */
export function createSocketHooks(pinDir: string, object: LoadedObject): SocketHooks {
  return {
    programs: object.programs,
    map: (name) => object.map(name),
    attach(cgroup) {
      const folder = join(pinDir, 'sockets');
      mkdirSync(folder, { recursive: true });
      for (const [name, { fd, section }] of object.programs)
        attachToCgroup({ cgroup, hook: section as CgroupHook, programFd: fd, pinPath: join(folder, name) });
    },
    close: () => object.close(),
  };
}
