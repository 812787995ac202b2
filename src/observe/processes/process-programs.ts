// The programs that tell of processes: what is to be loaded, and where they are hung.
import { existsSync, mkdirSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import type { LoadedObject, LoadOptions } from '../../kernel/bpf-object.ts';
import { datapathMaps, ProcessCounter } from '../../kernel/datapath.gen.ts';
import { netnsCookie } from '../../kernel/netns.ts';
import { pidNamespace } from '../../kernel/proc.ts';
import { openRing, type RingBuffer } from '../../kernel/ring-buffer.ts';
import { attachTracepoint, runIterator } from '../../kernel/tracepoints.ts';
import { typedMap } from '../../kernel/typed-map.ts';

/** The loaded programs. */
export interface ProcessPrograms {
  readonly ring: RingBuffer;
  /** Records that found the ring full. */
  lost(): number;
  /** Hangs the programs on their tracepoints, in place of those of an earlier run. Answers with those that the kernel lacks. */
  attach(): string[];
  /** The processes that there are, as records of the ring. */
  list(): Uint8Array;
  /** Notes whose the sockets are that there are already. */
  noteSockets(): void;
  close(): void;
}

/** Kernels before 6.3 have no such tracepoints: there a server's connections keep the name of who listens. */
const workers = { socket_sent: 'sock_send_length', socket_received: 'sock_recv_length' } as const;
const tracepoints = ['process_exec', 'process_fork', 'process_exit', ...Object.keys(workers)];

/** The programs that the running kernel has tracepoints for. */
export function processProgramNames(): string[] {
  const names = tracepoints.filter((name) => hasWorkerTracepoints() || !(name in workers));
  return [...names, 'list_processes', 'list_sockets'];
}

function hasWorkerTracepoints(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 3);
}

/** What is to be loaded. The calling thread is in the node's network namespace. */
export function processObject(options: {
  readonly objects: string;
  readonly pinDir: string;
  readonly maxEntries?: Record<string, number>;
}): LoadOptions {
  const path = join(options.objects, 'process.bpf.o');
  if (!existsSync(path)) throw new WeirError('BPF_OBJECT_MISSING', `${path} does not exist`);
  return {
    path,
    pinDir: join(options.pinDir, 'maps'),
    constants: { node_netns_cookie: netnsCookie(), node_pid_namespace: pidNamespace() },
    programs: processProgramNames(),
    maxEntries: options.maxEntries,
  };
}

/** The programs of an object that is loaded. */
export function createProcessPrograms(pinDir: string, object: LoadedObject): ProcessPrograms {
  const ring = openRing(object.map('process_events'));
  const counters = typedMap(object.map('process_counters'), datapathMaps.process_counters);
  return {
    ring,
    lost: () =>
      (counters.lookupPerCpu(ProcessCounter.PROCESS_EVENTS_LOST) ?? []).reduce((sum, each) => sum + Number(each), 0),
    attach() {
      const folder = join(pinDir, 'processes');
      mkdirSync(folder, { recursive: true });
      const missing: string[] = [];
      for (const name of tracepoints) {
        const program = object.programs.get(name);
        if (program === undefined) missing.push(name);
        else attachTracepoint(program.fd, join(folder, name));
      }
      return missing;
    },
    list: () => runIterator(object.program('list_processes').fd),
    noteSockets() {
      runIterator(object.program('list_sockets').fd);
    },
    close() {
      ring.close();
      object.close();
    },
  };
}
