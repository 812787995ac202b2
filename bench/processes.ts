// What it costs to know the process of every connection: TCP_CRR ×16 between two pods of a node, with the datapath alone and
// with the hooks that note sockets and the tracepoints that tell of processes, against bare routed namespaces, in turns. Then
// how fast programs are run while every exec is told.
// usage: processes.ts [--rounds N] [--seconds N] [--json]
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { networkPolicy } from '../bpf/test/policy-lines.ts';
import { type LoadedObject, loadObject } from '../src/kernel/bpf-object.ts';
import { attachToCgroup, type CgroupHook } from '../src/kernel/cgroup-attachment.ts';
import { findCgroup2 } from '../src/kernel/cgroups.ts';
import {
  datapathMaps,
  EVENT_SIZE,
  EventOffset,
  EventType,
  PROCESS_REF_SIZE,
  ProcessRefOffset,
} from '../src/kernel/datapath.gen.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { netnsCookie, openNetns, withNetns } from '../src/kernel/netns.ts';
import { pidNamespace, readProcess, workingDirectory } from '../src/kernel/proc.ts';
import { openRing, readRing } from '../src/kernel/ring-buffer.ts';
import { writeSysctl } from '../src/kernel/sysctl.ts';
import { attachTracepoint, runIterator } from '../src/kernel/tracepoints.ts';
import { typedMap } from '../src/kernel/typed-map.ts';
import { createProcessTable } from '../src/observe/processes/process-table.ts';
import { secretPatterns } from '../src/observe/processes/redact.ts';
import { type Bed, createBed } from '../test/bed/bed.ts';
import { ensureLoad } from './load/build.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '12' },
    seconds: { type: 'string', default: '0.7' },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const objects = join(root, 'build/bpf');
const run = promisify(execFile);
const load = ensureLoad(root);
const port = 5001;
const cgroup = join(findCgroup2()!, `weir-bench-${process.pid}`);
const pins = `/sys/fs/bpf/weir-bench-${process.pid}`;
const tracepoints = ['process_exec', 'process_fork', 'process_exit', 'socket_sent', 'socket_received'];

/** In the group of the benchmark, in a pod's network. */
const inPod = (bed: Bed, pod: string, argv: readonly string[]) => [
  'sh',
  '-c',
  'echo 0 >"$1/cgroup.procs"; shift; exec nsenter "$@"',
  'sh',
  cgroup,
  `--net=/run/netns/${bed.pod(pod).netns}`,
  ...argv,
];

async function open(bare: boolean) {
  const bed = await createBed({
    bare,
    pods: [
      { name: 'a', node: 0 },
      { name: 'b', node: 0 },
    ],
  });
  if (!bare)
    bed.setPolicies([
      networkPolicy('bench', {
        podSelector: {},
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: [{ podSelector: { matchLabels: { app: 'a' } } }], ports: [{ port }] }],
        egress: [{ to: [{ podSelector: {} }], ports: [{ port }] }],
      }),
    ]);
  for (const pod of bed.pods) {
    const fd = openNetns(`/run/netns/${pod.netns}`);
    withNetns(fd, () => {
      writeSysctl('net.ipv4.tcp_max_tw_buckets', '0');
      writeSysctl('net.ipv4.ip_local_port_range', '1024 65535');
    });
    closeFd(fd);
  }
  const [program = '', ...args] = inPod(bed, 'b', [load, 'serve', String(port)]);
  const server = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  return { bed, server };
}

async function rate(bed: Bed): Promise<number> {
  const [program = '', ...args] = inPod(bed, 'a', [
    load,
    'crr',
    bed.pod('b').ipv4,
    String(port),
    '16',
    options.seconds!,
  ]);
  const { stdout } = await run(program, args);
  const result = JSON.parse(stdout) as { count: number; seconds: number };
  return result.count / result.seconds;
}

mkdirSync(cgroup);
mkdirSync(pins);
const closers: (() => void)[] = [];
const rates = { before: [] as number[], datapath: [] as number[], processes: [] as number[], after: [] as number[] };
const execRates = { without: [] as number[], told: [] as number[] };
/** Of the last round. */
let told = { named: 0, unnamed: 0 };
let lost = 0;
try {
  const bare = await open(true);
  const weir = await open(false);
  closers.push(
    ...[bare, weir].map((each) => () => {
      each.server.kill('SIGKILL');
      each.bed.close();
    }),
  );
  const node = weir.bed.nodes[0]!;
  const reuse = Object.fromEntries(
    Object.keys(datapathMaps).flatMap((name) => {
      try {
        return [[name, node.datapath!.map(name)] as const];
      } catch {
        return []; // of other programs
      }
    }),
  );
  const constants = { node_netns_cookie: withNetns(node.netnsFd, netnsCookie), node_pid_namespace: pidNamespace() };
  const sock = loadObject({ path: join(objects, 'sock.bpf.o'), reuse, constants });
  const shared = {
    socket_owners: reuse.socket_owners!,
    netns_pods: reuse.netns_pods!,
    unnamed_sockets: sock.map('unnamed_sockets'),
  };
  const processes = loadObject({ path: join(objects, 'process.bpf.o'), reuse: shared, constants });
  closers.push(sock.close, processes.close);
  const pods = typedMap(reuse.netns_pods!, datapathMaps.netns_pods);
  for (const pod of weir.bed.pods) pods.update(withNetns(`/run/netns/${pod.netns}`, netnsCookie), pod.ifindex);
  const ring = openRing(processes.map('process_events'));
  closers.push(ring.close);
  const table = createProcessTable({
    nodeName: 'bench',
    readProcess,
    workingDirectory,
    container: () => undefined,
    containerByPath: () => undefined,
    redact: secretPatterns,
    wallMs: (ns) => ns / 1e6,
  });
  const nearPid = EventOffset.who + ProcessRefOffset.pid;
  const farPid = nearPid + PROCESS_REF_SIZE;
  const takeEvents = () => {
    readRing(ring, table.record);
    readRing(node.datapath!.ring, (view, offset, length) => {
      if (length !== EVENT_SIZE || view.getUint8(offset + EventOffset.type) !== EventType.EVENT_NEW) return;
      if (view.getUint32(offset + nearPid, true) > 0 && view.getUint32(offset + farPid, true) > 0) told.named++;
      else told.unnamed++;
    });
  };
  const reader = setInterval(takeEvents, 10);

  for (let i = 0; i < Number(options.rounds); i++) {
    rates.before.push(await rate(bare.bed));
    rates.datapath.push(await rate(weir.bed));
    attach(sock, processes);
    // The server listened before.
    runIterator(processes.program('list_sockets').fd);
    takeEvents();
    told = { named: 0, unnamed: 0 };
    rates.processes.push(await rate(weir.bed));
    takeEvents();
    execRates.told.push(await execRate());
    detach();
    execRates.without.push(await execRate());
    rates.after.push(await rate(bare.bed));
    process.stderr.write(
      `round ${i + 1}: ${JSON.stringify(Object.fromEntries(Object.entries(rates).map(([k, v]) => [k, Math.round(v.at(-1)!)])))}\n`,
    );
  }
  clearInterval(reader);
  const counters = typedMap(processes.map('process_counters'), datapathMaps.process_counters);
  lost = (counters.lookupPerCpu(0) ?? []).reduce((sum, each) => sum + Number(each), 0);
} finally {
  detach();
  for (const close of closers.reverse()) close();
  rmSync(pins, { recursive: true, force: true });
  await removeGroup();
}

function attach(sock: LoadedObject, processes: LoadedObject): void {
  for (const [name, { fd, section }] of sock.programs)
    attachToCgroup({ cgroup, hook: section as CgroupHook, programFd: fd, pinPath: join(pins, name) });
  for (const name of tracepoints) attachTracepoint(processes.program(name).fd, join(pins, name));
}

function detach(): void {
  for (const name of readdirSync(pins)) rmSync(join(pins, name));
}

/** Programs a second, one after another. */
async function execRate(): Promise<number> {
  const { stdout } = await run('sh', [
    '-c',
    'start=$(date +%s%N); i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done; echo $(($(date +%s%N)-start))',
  ]);
  return 300 / (Number(stdout) / 1e9);
}

/** The server takes a moment to leave it. */
async function removeGroup(): Promise<void> {
  for (let i = 0; i < 100; i++) {
    try {
      writeFileSync(join(cgroup, 'cgroup.kill'), '1');
      rmdirSync(cgroup);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const bare = median([...rates.before, ...rates.after]);
const spread = Math.abs(median(rates.before) - median(rates.after)) / bare;
const against = (name: string, list: readonly number[], goal: number): Measure => {
  const ratio = median(list) / bare;
  return {
    measure: name,
    unit: '/s',
    median: median(list),
    bare,
    ratio,
    spread,
    goal,
    rival: 0.18,
    met: spread > 0.1 ? 'too noisy' : ratio + spread >= goal ? 'yes' : 'no',
  };
};
printReport(
  'processes',
  [
    against('TCP_CRR ×16, one node, flow events on', rates.datapath, 0.97),
    against('the same with the process of every connection', rates.processes, 0.93),
    { measure: 'connections of the last round with both processes named', unit: '', median: told.named },
    {
      measure: 'connections of the last round without',
      unit: '',
      median: told.unnamed,
      goal: 0,
      met: told.unnamed === 0 ? 'yes' : 'no',
    },
    {
      measure: 'programs run, one after another, told of',
      unit: '/s',
      median: median(execRates.told),
      bare: median(execRates.without),
      ratio: median(execRates.told) / median(execRates.without),
    },
    { measure: 'processes that were not told of', unit: '', median: lost, goal: 0, met: lost === 0 ? 'yes' : 'no' },
  ],
  options.json!,
);
process.exit(0);
