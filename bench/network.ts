// Pod to pod through the datapath, policy and flow events on, against the same namespaces with plain routing, in one run.
// A ratio is the median over several loads of the programs, each between two bare runs; the spread of those two is what
// the machine alone does. Needs a quiet machine: TCP_RR is pinned to one CPU, else it would measure wake-ups.
import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { networkPolicy } from '../bpf/test/policy-lines.ts';
import { counter } from '../bpf/test/probe.ts';
import { enableRunStats, listPrograms } from '../src/kernel/bpf-stats.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { openNetns, withNetns } from '../src/kernel/netns.ts';
import { readRing } from '../src/kernel/ring-buffer.ts';
import { writeSysctl } from '../src/kernel/sysctl.ts';
import { type Bed, createBed } from '../test/bed/bed.ts';
import { ensureLoad } from './load/build.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    loads: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '0.7' },
    only: { type: 'string' },
  },
});
const loads = Number(options.loads);
const seconds = Number(options.seconds);
const run = promisify(execFile);
const load = ensureLoad(fileURLToPath(new URL('..', import.meta.url)));
const port = 5001;

interface Case {
  readonly name: string;
  readonly kind: 'rr' | 'crr' | 'stream';
  readonly threads: number;
  readonly target: 'b' | 'c';
  readonly six: boolean;
  /** The ratio wanted, and the rival's. */
  readonly goal: number;
  readonly rival: number;
}

const kinds = [
  { name: 'TCP_RR ×1, one CPU', kind: 'rr', threads: 1, goals: [1.05, 1.0], rivals: [0.89, 0.8] },
  { name: 'TCP_CRR ×1', kind: 'crr', threads: 1, goals: [0.97, 0.97], rivals: [0.26, 0.1] },
  { name: 'TCP_CRR ×16', kind: 'crr', threads: 16, goals: [0.97, 0.97], rivals: [0.18, 0.1] },
  { name: 'TCP stream ×1, cubic', kind: 'stream', threads: 1, goals: [1.0, 0.98], rivals: [1.03, 0.98] },
] as const;
const cases: Case[] = kinds.flatMap(({ name, kind, threads, goals, rivals }) =>
  (['b', 'c'] as const).flatMap((target, i) =>
    [false, true].map((six) => ({
      name: `${name}, ${target === 'b' ? 'one node' : 'across nodes'}, IPv${six ? 6 : 4}`,
      kind,
      threads,
      target,
      six,
      goal: goals[i]!,
      rival: rivals[i]!,
    })),
  ),
);

const pods = [
  { name: 'a', node: 0 },
  { name: 'b', node: 0 },
  { name: 'c', node: 1 },
];
const policy = networkPolicy('shop', {
  podSelector: {},
  policyTypes: ['Ingress', 'Egress'],
  ingress: [{ from: [{ podSelector: { matchLabels: { app: 'a' } } }], ports: [{ port, endPort: port + 1 }] }],
  egress: [{ to: [{ podSelector: {} }], ports: [{ port, endPort: port + 1 }] }],
});

/** A bed with servers in its pods. */
async function open(bare: boolean): Promise<{ bed: Bed; close(): void }> {
  const bed = await createBed({ bare, pods });
  if (!bare) bed.setPolicies([policy]);
  for (const pod of bed.pods) {
    const fd = openNetns(`/run/netns/${pod.netns}`);
    // A connection that is over must not keep its port: thousands a second are opened.
    withNetns(fd, () => {
      writeSysctl('net.ipv4.tcp_max_tw_buckets', '0');
      writeSysctl('net.ipv4.ip_local_port_range', '1024 65535');
    });
    closeFd(fd);
  }
  const servers = await Promise.all(
    ['b', 'c'].flatMap((name) =>
      // One server for RR, on the CPU where its client will be, and one for all else.
      [
        { cpus: '0', at: port + 1 },
        { cpus: '0,1', at: port },
      ].map(async ({ cpus, at }) => {
        const child = spawn(
          'nsenter',
          [`--net=/run/netns/${bed.pod(name).netns}`, 'taskset', '-c', cpus, load, 'serve', String(at)],
          { stdio: ['ignore', 'pipe', 'inherit'] },
        );
        await new Promise((resolve) => child.stdout.once('data', resolve));
        return child;
      }),
    ),
  );
  return {
    bed,
    close() {
      for (const child of servers) child.kill('SIGKILL');
      bed.close();
    },
  };
}

async function rate(bed: Bed, each: Case): Promise<number> {
  const pod = bed.pod(each.target);
  const pinned = each.kind === 'rr';
  const { stdout } = await run('nsenter', [
    `--net=/run/netns/${bed.pod('a').netns}`,
    'taskset',
    '-c',
    pinned ? '0' : '0,1',
    load,
    each.kind,
    each.six ? pod.ipv6 : pod.ipv4,
    String(pinned ? port + 1 : port),
    String(each.threads),
    String(seconds),
  ]);
  const result = JSON.parse(stdout) as { count: number; bytes: number; seconds: number; errors: number };
  if (result.errors > result.count / 1000) process.stderr.write(`${each.name}: ${result.errors} errors\n`);
  return each.kind === 'stream' ? (result.bytes * 8) / result.seconds / 1e6 : result.count / result.seconds;
}

const wanted = cases.filter((each) => options.only === undefined || each.name.includes(options.only));
const results = new Map(
  wanted.map((each) => [each, { weir: [] as number[], before: [] as number[], after: [] as number[] }]),
);
const bpf = new Map<Case, number[]>();
let events = 0;
let lost = 0;
for (let i = 0; i < loads; i++) {
  const bare = await open(true);
  const weir = await open(false);
  // As the agent does it: by a timer, never woken.
  const reader = setInterval(() => {
    for (const node of weir.bed.nodes) events += readRing(node.datapath!.ring, () => {});
  }, 10);
  for (const each of wanted) {
    const of = results.get(each)!;
    of.before.push(await rate(bare.bed, each));
    of.weir.push(await rate(weir.bed, each));
    of.after.push(await rate(bare.bed, each));
    process.stderr.write(
      `load ${i + 1} of ${loads}: ${each.name}: ${(of.weir.at(-1)! / ((of.before.at(-1)! + of.after.at(-1)!) / 2)).toFixed(3)}\n`,
    );
  }
  for (const each of wanted.filter((one) => one.kind === 'crr' && one.threads === 1)) {
    const stats = enableRunStats();
    const time = () =>
      listPrograms()
        .filter((program) => ['pod', 'device', 'node'].includes(program.name))
        .reduce((sum, program) => sum + Number(program.runTimeNs), 0);
    const before = time();
    const perSecond = await rate(weir.bed, each);
    bpf.set(each, [...(bpf.get(each) ?? []), (time() - before) / (perSecond * seconds)]);
    stats.close();
  }
  lost += weir.bed.nodes.reduce((sum, node) => sum + counter(node, 'COUNTER_EVENTS_LOST'), 0);
  clearInterval(reader);
  weir.close();
  bare.close();
}

const measures: Measure[] = [...results].map(([each, { weir, before, after }]) => {
  const bare = median([...before, ...after]);
  const spread = Math.abs(median(before) - median(after)) / bare;
  const ratio = median(weir) / bare;
  return {
    measure: each.name,
    unit: each.kind === 'stream' ? 'Mbit/s' : '/s',
    median: median(weir),
    bare,
    ratio,
    spread,
    goal: each.goal,
    rival: each.rival,
    // Where the bare runs differ by more than a tenth, the machine was busy and nothing can be said.
    met: spread > 0.1 ? 'too noisy' : ratio + spread >= each.goal ? 'yes' : 'no',
  };
});
for (const [each, times] of bpf) {
  const goal = each.target === 'b' ? 4000 : 8000;
  measures.push({
    measure: `BPF time per connection, ${each.target === 'b' ? 'one node' : 'across nodes (both)'}, IPv${each.six ? 6 : 4}`,
    unit: 'ns',
    median: median(times),
    goal,
    rival: each.target === 'b' ? 128_000 : 258_000,
    met: median(times) <= goal ? 'yes' : 'no',
  });
}
measures.push(
  { measure: 'events read', unit: '', median: events },
  { measure: 'events lost', unit: '', median: lost, goal: 0, met: lost === 0 ? 'yes' : 'no' },
);
printReport('network', measures, options.json!);
process.exit(0);
