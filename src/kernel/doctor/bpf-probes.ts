// Questions about BPF itself: maps, program types, helpers, type information.
import { readFileSync, statfsSync } from 'node:fs';
import { type BpfMap, createMap } from '../bpf-map.ts';
import { programInfo } from '../bpf-program.ts';
import { enableRunStats } from '../bpf-stats.ts';
import { MapType, ProgType } from '../bpf-syscall.ts';
import { parseBtf } from '../btf.ts';
import { closeFd, mapShared, PROT_READ, pageSize } from '../libc.ts';
import { callHelper, exit, type Instruction, loadInstructions, movImmediate, returnProgram } from '../raw-program.ts';
import { openRing } from '../ring-buffer.ts';
import { acceptingErrno, type Probe } from './probe.ts';

const BPF_FS_MAGIC = 0xcafe4a11;
const BPF_F_NO_PREALLOC = 1;
const BPF_F_MMAPABLE = 1024;
const attachType = { inet4Connect: 10, typedTracepoint: 23, skLookup: 36 } as const;

function tryProgram(options: Parameters<typeof loadInstructions>[0], look: (fd: number) => string = () => ''): string {
  const fd = loadInstructions(options);
  try {
    return look(fd);
  } finally {
    closeFd(fd);
  }
}

function tryMap(spec: Omit<Parameters<typeof createMap>[0], 'name'>, look: (map: BpfMap) => string = () => ''): string {
  using map = createMap({ name: 'weir_probe', ...spec });
  return look(map);
}

/** A tc program that calls a helper with plain numbers. The verifier knows the helper if it minds the arguments only. */
function tryHelper(id: number, args: readonly number[]): string {
  const instructions: Instruction[] = [
    ...args.map((value, i) => movImmediate(i + 1, value)),
    callHelper(id),
    movImmediate(0, 0),
    exit,
  ];
  acceptingErrno(['EACCES'], () => tryProgram({ type: ProgType.schedCls, instructions }));
  return '';
}

/** The type id under which the kernel keeps a tracepoint's signature. */
function findTracepoint(name: string): number {
  const btf = parseBtf(readFileSync('/sys/kernel/btf/vmlinux'));
  const id = btf.types.findIndex((type) => type.kind === 'typedef' && type.name === `btf_trace_${name}`);
  if (id < 0) throw new Error(`the kernel has no tracepoint ${name}`);
  return id;
}

function smallMap(type: number, flags = 0): Omit<Parameters<typeof createMap>[0], 'name'> {
  return { type, keySize: 4, valueSize: 4, maxEntries: 4, flags };
}

export const bpfProbes: readonly Probe[] = [
  {
    feature: 'BPF programs',
    neededFor: 'everything',
    attempt: () => tryProgram({ type: ProgType.schedCls, instructions: returnProgram(0) }),
  },
  {
    feature: 'BPF compiler (JIT)',
    neededFor: 'speed',
    instead: 'the interpreter, many times slower',
    attempt: () =>
      tryProgram({ type: ProgType.schedCls, instructions: returnProgram(0) }, (fd) => {
        if (programInfo(fd).jitedBytes === 0)
          throw new Error('programs are interpreted: set net.core.bpf_jit_enable=1');
        return '';
      }),
  },
  {
    feature: 'BPF file system',
    neededFor: 'forwarding without the agent',
    instead: 'the agent mounts it at /sys/fs/bpf',
    attempt() {
      if (statfsSync('/sys/fs/bpf').type !== BPF_FS_MAGIC) throw new Error('not mounted at /sys/fs/bpf');
      return 'mounted at /sys/fs/bpf';
    },
  },
  {
    feature: 'kernel type information (BTF)',
    neededFor: 'processes in flows',
    instead: 'flows without processes',
    attempt() {
      const bytes = readFileSync('/sys/kernel/btf/vmlinux').length;
      return `${(bytes / 1e6).toFixed(1)} MB`;
    },
  },
  {
    feature: 'typed tracepoints (tp_btf)',
    neededFor: 'processes in flows',
    instead: 'flows without processes',
    attempt: () =>
      tryProgram({
        type: ProgType.tracing,
        instructions: returnProgram(0),
        expectedAttachType: attachType.typedTracepoint,
        attachBtfId: findTracepoint('sched_process_exec'),
      }),
  },
  {
    feature: 'programs may read kernel memory',
    neededFor: 'nothing: what is read of the kernel is followed by type',
    instead: 'nothing',
    attempt: () => tryHelper(113, [0, 0, 0]),
  },
  { feature: 'hash maps', neededFor: 'everything', attempt: () => tryMap(smallMap(MapType.hash)) },
  { feature: 'LRU maps', neededFor: 'connection tracking', attempt: () => tryMap(smallMap(MapType.lruHash)) },
  {
    feature: 'longest-prefix maps',
    neededFor: 'CIDR policy, port ranges',
    attempt: () => tryMap({ ...smallMap(MapType.lpmTrie, BPF_F_NO_PREALLOC), keySize: 8 }),
  },
  {
    feature: 'ring buffer',
    neededFor: 'flows',
    attempt: () =>
      tryMap({ type: MapType.ringbuf, keySize: 0, valueSize: 0, maxEntries: pageSize() }, (map) => {
        openRing(map).close();
        return '';
      }),
  },
  {
    feature: 'maps as memory',
    neededFor: 'changing policy without a system call per epoch',
    instead: 'a system call each',
    attempt: () =>
      tryMap(smallMap(MapType.array, BPF_F_MMAPABLE), (map) => {
        mapShared(map.fd, pageSize(), 0, PROT_READ).close();
        return '';
      }),
  },
  {
    feature: 'map batches',
    neededFor: 'quick restarts with large maps',
    instead: 'one system call per entry',
    attempt: () =>
      tryMap(smallMap(MapType.hash), (map) => {
        if (!map.supportsBatch()) throw new Error('the kernel does not know them');
        return '';
      }),
  },
  {
    feature: 'redirect to a pod (bpf_redirect_peer)',
    neededFor: 'delivery to pods',
    attempt: () => tryHelper(155, [1, 0]),
  },
  {
    feature: 'redirect to a neighbour (bpf_redirect_neigh)',
    neededFor: 'delivery to other nodes',
    attempt: () => tryHelper(152, [1, 0, 0, 0]),
  },
  { feature: 'route lookup (bpf_fib_lookup)', neededFor: 'next hops', attempt: () => tryHelper(69, [0, 0, 0, 0]) },
  {
    feature: 'coarse clock (bpf_ktime_get_coarse_ns)',
    neededFor: 'connection timeouts',
    attempt: () => tryHelper(160, []),
  },
  {
    feature: 'programs run by a system call',
    neededFor: 'the sweep: telling of connections that ended silently',
    attempt: () => tryProgram({ type: ProgType.syscall, instructions: returnProgram(0), sleepable: true }),
  },
  {
    feature: 'walking a map (bpf_for_each_map_elem)',
    neededFor: 'the sweep: telling of connections that ended silently',
    attempt: () => tryHelper(164, [0, 0, 0, 0]),
  },
  {
    feature: 'handing packets to a socket (bpf_sk_assign)',
    neededFor: 'nothing yet (DNS and L7 policy)',
    instead: 'nothing',
    attempt: () => tryHelper(124, [0, 0, 0]),
  },
  {
    feature: 'connect hooks of cgroups',
    neededFor: 'services in the system call, processes of sockets',
    instead: 'nothing',
    attempt: () =>
      tryProgram({
        type: ProgType.cgroupSockAddr,
        instructions: returnProgram(1),
        expectedAttachType: attachType.inet4Connect,
      }),
  },
  {
    feature: 'socket events of cgroups (sock_ops)',
    neededFor: 'nothing: what is read of the kernel is followed by type',
    instead: 'nothing',
    attempt: () => tryProgram({ type: ProgType.sockOps, instructions: returnProgram(1) }),
  },
  {
    feature: 'socket lookup programs',
    neededFor: 'nothing yet (L7 policy on any port)',
    instead: 'nothing',
    attempt: () =>
      tryProgram({
        type: ProgType.skLookup,
        instructions: returnProgram(1),
        expectedAttachType: attachType.skLookup,
      }),
  },
  {
    feature: 'run statistics',
    neededFor: 'benchmarks: what each program costs',
    instead: 'no such figures',
    attempt() {
      enableRunStats().close();
      return '';
    },
  },
];
