// Services beside kube-proxy, the real one in both of its modes, following the same API server: how long one more Service
// takes until it answers, and what a connection to it costs, with 1, 100, 1 000 and 10 000 Services there already.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { kubeconfigFile, netnsFile, podCommand, programFile } from '../lab/lab.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { openNetns, withNetns } from '../src/kernel/netns.ts';
import { writeSysctl } from '../src/kernel/sysctl.ts';
import { type Bed, createBed } from '../test/bed/bed.ts';
import { addPods, type BenchLab, insideRoot, root, waitFor, withLab } from './bench-lab.ts';
import { ensureTool } from './load/build.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    counts: { type: 'string', default: '1,100,1000,10000' },
    samples: { type: 'string', default: '6' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '0.7' },
  },
});
const counts = options.counts!.split(',').map(Number);
const run = promisify(execFile);
const namespace = 'bench-services';
const port = 5001;
const [load, reach] = [ensureTool(root, 'load'), ensureTool(root, 'reach')];
const insideTool = (path: string) => path.replace(root, `${insideRoot}/`);
/** kube-proxy's node on the lab's network. */
const proxyAddress = '10.77.0.197';

type Mode = 'iptables' | 'nftables' | 'weir';
interface Side {
  readonly client: (argv: readonly string[]) => string[];
  readonly backend: string;
}
const programming = new Map<string, number[]>();
const rates = new Map<string, { direct: number[]; service: number[] }>();

function clusterIp(number: number): string {
  return `10.96.${40 + (number >> 8)}.${number & 255}`;
}

async function createService(lab: BenchLab, name: string, ip: string, backend: string): Promise<void> {
  const metadata = { name, namespace };
  await lab.api.create(`/api/v1/namespaces/${namespace}/services`, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: { clusterIP: ip, ports: [{ port: 80, targetPort: port }] },
  });
  await lab.api.create(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...metadata, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ port }],
    endpoints: [{ addresses: [backend], conditions: { ready: true } }],
  });
}

async function deleteService(lab: BenchLab, name: string): Promise<void> {
  await lab.api.delete(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices/${name}`);
  await lab.api.delete(`/api/v1/namespaces/${namespace}/services/${name}`);
}

let made = 0;
async function fillUpTo(lab: BenchLab, count: number): Promise<void> {
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      while (made < count - 1) {
        const number = made++;
        // Endpoints that nobody asks: documentation addresses.
        await createService(lab, `filler-${number}`, clusterIp(number), `198.18.${number >> 8}.${number & 255 || 1}`);
      }
    }),
  );
}

/** From the answer of the API server to the first connection, in ms. */
async function programmingTime(lab: BenchLab, side: Side, name: string, ip: string): Promise<number> {
  const [command, ...args] = side.client([reach, ip, '80']);
  const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  await waitFor('the client to try', async () => output.includes('trying'), 10_000, 5);
  await createService(lab, name, ip, side.backend);
  const createdMs = Number(process.hrtime.bigint()) / 1e6;
  await Promise.race([
    once(child, 'close'),
    new Promise((_, reject) => setTimeout(() => reject(new Error(`${ip} was never reached`)), 60_000).unref()),
  ]);
  return Number(/reached ([\d.]+)/.exec(output)?.[1]) - createdMs;
}

async function connections(side: Side, address: string, at: number): Promise<number> {
  const [command, ...args] = side.client([load, 'crr', address, String(at), '1', options.seconds!]);
  const { stdout } = await run(command!, args);
  const { count, seconds } = JSON.parse(stdout) as { count: number; seconds: number };
  return count / seconds;
}

async function measure(lab: BenchLab, mode: Mode, side: Side, count: number): Promise<void> {
  const key = `${mode}, ${count} service${count === 1 ? '' : 's'}`;
  const times: number[] = [];
  for (let i = 0; i < Number(options.samples); i++) {
    const name = `probe-${mode}-${count}-${i}`;
    times.push(await programmingTime(lab, side, name, `10.96.200.${i + 1}`));
    await deleteService(lab, name);
  }
  programming.set(key, times);
  await createService(lab, `load-${mode}-${count}`, '10.96.201.1', side.backend);
  await programmingTimeOf(side, '10.96.201.1');
  const of = { direct: [] as number[], service: [] as number[] };
  for (let i = 0; i < Number(options.rounds); i++) {
    of.direct.push(await connections(side, side.backend, port));
    of.service.push(await connections(side, '10.96.201.1', 80));
    of.direct.push(await connections(side, side.backend, port));
  }
  rates.set(key, of);
  await deleteService(lab, `load-${mode}-${count}`);
  process.stderr.write(
    `${key}: programmed in ${median(times).toFixed(1)} ms, CRR ${(median(of.service) / median(of.direct)).toFixed(3)} of direct\n`,
  );
}

/** Waits until an address answers. */
async function programmingTimeOf(side: Side, ip: string): Promise<void> {
  const [command, ...args] = side.client([reach, ip, '80']);
  await run(command!, args, { timeout: 60_000 });
}

async function startProxy(lab: BenchLab, bed: Bed, mode: Mode, kubeconfig: string): Promise<ChildProcess> {
  const child = spawn(
    'nsenter',
    [
      `--net=/run/netns/${bed.nodes[0]!.netns}`,
      programFile('kube-proxy'),
      `--kubeconfig=${kubeconfig}`,
      `--proxy-mode=${mode}`,
      '--hostname-override=proxy-node',
      '--healthz-bind-address=127.0.0.1:10356',
      '--metrics-bind-address=127.0.0.1:10349',
      '--conntrack-max-per-core=0',
      '--conntrack-tcp-timeout-established=0',
      '--conntrack-tcp-timeout-close-wait=0',
    ],
    { stdio: 'ignore' },
  );
  const tool = mode === 'iptables' ? ['iptables-save'] : ['nft', 'list', 'tables'];
  await waitFor(
    `rules of kube-proxy (${mode})`,
    async () => {
      const { stdout } = await run('nsenter', [`--net=/run/netns/${bed.nodes[0]!.netns}`, ...tool], {
        maxBuffer: 1 << 28,
      });
      return /KUBE-SVC-|table ip kube-proxy/.test(stdout) || (made === 0 && /KUBE-SERVICES|kube-proxy/.test(stdout));
    },
    120_000,
    200,
  );
  void lab;
  return child;
}

await withLab({ nodes: 1 }, async (lab) => {
  await lab.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }]);
  const [client, server] = await addPods(
    lab,
    ['client', 'server'].map((name) => ({ name, namespace, node: 'node1' })),
  );
  const bed = await createBed({
    bare: true,
    pods: [
      { name: 'a', node: 0 },
      { name: 'b', node: 0 },
    ],
  });
  const kubeconfig = join(tmpdir(), `weir-bench-${process.pid}.kubeconfig`);
  writeFileSync(
    kubeconfig,
    readFileSync(kubeconfigFile(lab.name), 'utf8').replace(/https:\/\/127\.0\.0\.1:\d+/, 'https://10.77.0.1:6443'),
    { mode: 0o600 },
  );
  const backbone = `--net=${netnsFile(lab.name, 'cp')}`;
  const node = `--net=/run/netns/${bed.nodes[0]!.netns}`;
  await run('ip', ['link', 'add', 'wbproxy', 'type', 'veth', 'peer', 'name', 'wbproxy1']);
  await run('ip', ['link', 'set', 'wbproxy', 'netns', bed.nodes[0]!.netns]);
  await run('nsenter', [backbone, 'true']);
  await run('ip', ['link', 'set', 'wbproxy1', 'netns', `weir-${lab.name}-cp`]);
  await run('nsenter', [backbone, 'ip', 'link', 'set', 'wbproxy1', 'master', 'lan', 'up']);
  await run('nsenter', [node, 'ip', 'address', 'add', `${proxyAddress}/24`, 'dev', 'wbproxy']);
  await run('nsenter', [node, 'ip', 'link', 'set', 'wbproxy', 'up']);
  for (const pod of bed.pods) {
    const fd = openNetns(`/run/netns/${pod.netns}`);
    withNetns(fd, () => {
      writeSysctl('net.ipv4.tcp_max_tw_buckets', '0');
      writeSysctl('net.ipv4.ip_local_port_range', '1024 65535');
    });
    closeFd(fd);
  }
  const settings =
    'echo 0 > /proc/sys/net/ipv4/tcp_max_tw_buckets; echo "1024 65535" > /proc/sys/net/ipv4/ip_local_port_range';
  for (const pod of [client!, server!]) {
    const [command, ...args] = podCommand(lab.record, pod, ['sh', '-c', settings]);
    await run(command!, args);
  }
  const weir: Side = {
    client: (argv) => podCommand(lab.record, client!, [insideTool(argv[0]!), ...argv.slice(1)]),
    backend: server!.addresses.find((each) => !each.includes(':'))!,
  };
  const bare: Side = {
    client: (argv) => ['nsenter', `--net=/run/netns/${bed.pod('a').netns}`, ...argv],
    backend: bed.pod('b').ipv4,
  };
  const servers = [
    podCommand(lab.record, server!, [insideTool(load), 'serve', String(port)]),
    ['nsenter', `--net=/run/netns/${bed.pod('b').netns}`, load, 'serve', String(port)],
  ].map(([command, ...args]) => spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'] }));
  await Promise.all(servers.map((child) => once(child.stdout!, 'data')));
  try {
    for (const count of counts) {
      await fillUpTo(lab, count);
      await measure(lab, 'weir', weir, count);
      for (const mode of ['iptables', 'nftables'] as const) {
        const proxy = await startProxy(lab, bed, mode, kubeconfig);
        await measure(lab, mode, bare, count);
        proxy.kill('SIGKILL');
        await once(proxy, 'exit');
        await run('nsenter', [node, programFile('kube-proxy'), '--cleanup']).catch(() => undefined);
      }
    }
  } finally {
    for (const child of servers) child.kill('SIGKILL');
    bed.close();
    rmSync(kubeconfig, { force: true });
  }
});

const measures: Measure[] = [
  ...[...programming].map(([key, times]) => ({
    measure: `one more Service answers: ${key}`,
    unit: 'ms',
    median: median(times),
    most: Math.max(...times),
  })),
  ...[...rates].map(([key, { direct, service }]) => ({
    measure: `TCP_CRR ×1 of a ClusterIP: ${key}`,
    unit: '/s',
    median: median(service),
    direct: median(direct),
    ratio: median(service) / median(direct),
    ...(key.startsWith('weir') ? { goal: 0.98, met: median(service) / median(direct) >= 0.98 ? 'yes' : 'no' } : {}),
  })),
];
printReport('kube-proxy', measures, options.json!);
process.exit(0);
