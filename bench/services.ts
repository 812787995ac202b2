// Services in the system call: a client that connects to a ClusterIP beside one that connects to the backend's own address,
// the same namespaces and the same programs, in turns; with one service and with ten thousand.
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { unpin } from '../src/kernel/bpf-link.ts';
import { loadObject } from '../src/kernel/bpf-object.ts';
import { attachToCgroup, type CgroupHook } from '../src/kernel/cgroup-attachment.ts';
import { findCgroup2 } from '../src/kernel/cgroups.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { openNetns, withNetns } from '../src/kernel/netns.ts';
import { readRing } from '../src/kernel/ring-buffer.ts';
import { writeSysctl } from '../src/kernel/sysctl.ts';
import { createBed } from '../test/bed/bed.ts';
import { createBedServices } from '../test/bed/services.ts';
import { ensureLoad } from './load/build.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    loads: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '0.7' },
    services: { type: 'string', default: '10000' },
  },
});
const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const load = ensureLoad(root);
const port = 5001;
const front = { ipv4: '10.96.0.10', ipv6: 'fd96::10', port: 80, targetPort: port };

const cases = [
  { name: 'TCP_RR ×1, one CPU', kind: 'rr', threads: 1 },
  { name: 'TCP_CRR ×1', kind: 'crr', threads: 1 },
  { name: 'TCP_CRR ×16', kind: 'crr', threads: 16 },
] as const;
type Case = (typeof cases)[number] & { six: boolean; services: number };
const results = new Map<string, { each: Case; direct: number[]; service: number[] }>();

async function measureLoad(number: number): Promise<void> {
  const bed = await createBed({
    pods: [
      { name: 'a', node: 0 },
      { name: 'b', node: 0 },
    ],
  });
  const services = createBedServices(bed);
  const node = bed.nodes[0]!;
  const group = join(findCgroup2()!, `weir-bench-${process.pid}`);
  mkdirSync(group, { recursive: true });
  const names = ['services', 'lb_slots', 'backends', 'backend_counts', 'service_affinity', 'ipcache', 'source_ranges'];
  const hooks = loadObject({
    path: join(root, 'build/bpf/sock.bpf.o'),
    reuse: Object.fromEntries(names.map((name) => [name, node.datapath!.map(name)])),
  });
  const pins = [...hooks.programs].map(([name, { fd, section }]) => {
    const pinPath = `/sys/fs/bpf/weir-bench-${process.pid}-${name}`;
    attachToCgroup({ cgroup: group, hook: section as CgroupHook, programFd: fd, pinPath });
    return pinPath;
  });
  for (const pod of bed.pods) {
    const fd = openNetns(`/run/netns/${pod.netns}`);
    withNetns(fd, () => {
      writeSysctl('net.ipv4.tcp_max_tw_buckets', '0');
      writeSysctl('net.ipv4.ip_local_port_range', '1024 65535');
    });
    closeFd(fd);
  }
  const [client, server] = [bed.pod('a'), bed.pod('b')];
  // One server for RR, on the CPU where its client will be, and one for all else.
  const serving = await Promise.all(
    [
      { cpus: '0', at: port + 1 },
      { cpus: '0,1', at: port },
    ].map(async ({ cpus, at }) => {
      const child = spawn(
        'nsenter',
        [`--net=/run/netns/${server.netns}`, 'taskset', '-c', cpus, load, 'serve', String(at)],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      await new Promise((resolve) => child.stdout.once('data', resolve));
      return child;
    }),
  );
  const reader = setInterval(() => {
    for (const each of bed.nodes) readRing(each.datapath!.ring, () => {});
  }, 10);
  try {
    services.add({ ...front, backends: [server], kind: 'ClusterIP' });
    services.add({ ...front, port: 81, targetPort: port + 1, backends: [server], kind: 'ClusterIP' });
    const rate = async (each: Case, address: string, at: number) => {
      const cpus = each.kind === 'rr' ? '0' : '0,1';
      const command = `echo $$ > ${group}/cgroup.procs && exec nsenter --net=/run/netns/${client.netns} taskset -c ${cpus} ${load} ${each.kind} ${address} ${at} ${each.threads} ${options.seconds}`;
      const { stdout } = await run('sh', ['-c', command]);
      const { count, seconds, errors } = JSON.parse(stdout) as { count: number; seconds: number; errors: number };
      if (errors > count / 1000) process.stderr.write(`${each.name}: ${errors} errors\n`);
      return count / seconds;
    };
    for (const count of [1, Number(options.services)]) {
      for (let i = 1; i < count; i++)
        services.add({
          ipv4: `10.97.${i >> 8}.${i & 255}`,
          ipv6: `fd97::${(i >> 8).toString(16)}:${(i & 255).toString(16)}`,
          port: 80,
          targetPort: port,
          backends: [server],
          kind: 'ClusterIP',
          algorithm: 'random',
        });
      for (const six of [false, true]) {
        for (const kind of cases) {
          const each: Case = { ...kind, six, services: count };
          const name = `${kind.name}, ${count} service${count === 1 ? '' : 's'}, IPv${six ? 6 : 4}`;
          const of = results.get(name) ?? { each, direct: [], service: [] };
          results.set(name, of);
          const [own, shared] = six ? [server.ipv6, front.ipv6] : [server.ipv4, front.ipv4];
          const pinned = kind.kind === 'rr' ? 1 : 0;
          of.direct.push(await rate(each, own, port + pinned));
          of.service.push(await rate(each, shared, front.port + pinned));
          of.direct.push(await rate(each, own, port + pinned));
          process.stderr.write(
            `load ${number}: ${name}: ${((2 * of.service.at(-1)!) / (of.direct.at(-1)! + of.direct.at(-2)!)).toFixed(3)}\n`,
          );
        }
      }
    }
  } finally {
    clearInterval(reader);
    for (const child of serving) child.kill('SIGKILL');
    for (const path of pins) unpin(path);
    hooks.close();
    services.close();
    bed.close();
    rmdirSync(group);
  }
}

for (let i = 0; i < Number(options.loads); i++) await measureLoad(i + 1);
const measures: Measure[] = [...results].map(([name, { direct, service }]) => {
  const before = direct.filter((_, i) => i % 2 === 0);
  const after = direct.filter((_, i) => i % 2 === 1);
  const bare = median(direct);
  const spread = Math.abs(median(before) - median(after)) / bare;
  const ratio = median(service) / bare;
  return {
    measure: name,
    unit: '/s',
    median: median(service),
    direct: bare,
    ratio,
    spread,
    goal: 0.98,
    rival: 0.98,
    met: spread > 0.1 ? 'too noisy' : ratio + spread >= 0.98 ? 'yes' : 'no',
  };
});
printReport('services', measures, options.json!);
process.exit(0);
