// Services beside kube-proxy, the real one in both of its modes, following the same API server: how long one more Service
// takes until it answers, and what a connection to it costs, with 1, 100, 1 000 and 10 000 Services there already. Every step
// has a deadline: what is not there by then is reported so, and the rest goes on.
// usage: kube-proxy.ts [--counts N,N] [--samples N] [--rounds N] [--step-seconds N] [--json]
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs, promisify } from 'node:util';
import { podCommand } from '../lab/lab.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { openNetns, withNetns } from '../src/kernel/netns.ts';
import { writeSysctl } from '../src/kernel/sysctl.ts';
import { createBed } from '../test/bed/bed.ts';
import { addPods, type BenchLab, insideRoot, root, waitFor, withLab } from './bench-lab.ts';
import { ensureTool } from './load/build.ts';
import { createProxyNode } from './proxy-node.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    counts: { type: 'string', default: '1,100,1000,10000' },
    samples: { type: 'string', default: '6' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '0.7' },
    'step-seconds': { type: 'string', default: '60' },
  },
});
const counts = options.counts!.split(',').map(Number);
/** The most that one Service is waited for, that a mode is given to come up, and that its samples take together. */
const stepMs = Number(options['step-seconds']) * 1000;
const run = promisify(execFile);
const namespace = 'bench-services';
const port = 5001;
const [load, reach] = [ensureTool(root, 'load'), ensureTool(root, 'reach')];
const insideTool = (path: string) => path.replace(root, `${insideRoot}/`);

type Mode = 'iptables' | 'nftables' | 'weir';
interface Side {
  readonly client: (argv: readonly string[]) => string[];
  readonly backend: string;
}
/** In ms; undefined: not within the deadline. */
type Waited = number | undefined;
const starting = new Map<string, Waited>();
const programming = new Map<string, Waited[]>();
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

/** When an address begins to answer, by the monotonic clock in ms; undefined when it does not before the deadline. `ready`
 * is told when the client tries. */
async function reachedAt(side: Side, ip: string, ready: () => Promise<void> = async () => {}): Promise<Waited> {
  const [command, ...args] = side.client(['timeout', String(stepMs / 1000), reach, ip, '80']);
  const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  await waitFor('the client to try', async () => output.includes('trying'), 10_000, 5);
  await ready();
  await closed;
  const text = /reached ([\d.]+)/.exec(output)?.[1];
  return text === undefined ? undefined : Number(text);
}

const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

/** From the answer of the API server to the first connection. */
async function programmingTime(lab: BenchLab, side: Side, name: string, ip: string): Promise<Waited> {
  let createdMs = 0;
  const atMs = await reachedAt(side, ip, async () => {
    await createService(lab, name, ip, side.backend);
    createdMs = nowMs();
  });
  return atMs === undefined ? undefined : atMs - createdMs;
}

async function connections(side: Side, address: string, at: number): Promise<number> {
  const [command, ...args] = side.client([load, 'crr', address, String(at), '1', options.seconds!]);
  const { stdout } = await run(command!, args);
  const { count, seconds } = JSON.parse(stdout) as { count: number; seconds: number };
  return count / seconds;
}

const loadIp = '10.96.201.1';
const nameOf = (mode: Mode, count: number) => `${mode}, ${count} service${count === 1 ? '' : 's'}`;

/** `start` begins to serve, and answers how that ends. */
async function measure(
  lab: BenchLab,
  mode: Mode,
  side: Side,
  count: number,
  start: () => () => Promise<void>,
): Promise<void> {
  const key = nameOf(mode, count);
  // It comes last: when it answers, everything is written.
  await createService(lab, `load-${mode}-${count}`, loadIp, side.backend);
  const beganMs = nowMs();
  const stop = start();
  try {
    const atMs = await reachedAt(side, loadIp);
    starting.set(key, atMs === undefined ? undefined : atMs - beganMs);
    if (atMs === undefined) {
      process.stderr.write(`${key}: does not serve within ${stepMs} ms\n`);
      return;
    }
    const times: Waited[] = [];
    const until = nowMs() + stepMs;
    for (let i = 0; i < Number(options.samples) && (times.length === 0 || nowMs() < until); i++) {
      const name = `probe-${mode}-${count}-${i}`;
      times.push(await programmingTime(lab, side, name, `10.96.200.${i + 1}`));
      await deleteService(lab, name);
    }
    programming.set(key, times);
    const of = { direct: [] as number[], service: [] as number[] };
    for (let i = 0; i < Number(options.rounds); i++) {
      of.direct.push(await connections(side, side.backend, port));
      of.service.push(await connections(side, loadIp, 80));
      of.direct.push(await connections(side, side.backend, port));
    }
    rates.set(key, of);
    const shown = times.map((each) => each?.toFixed(1) ?? `> ${stepMs}`).join(', ');
    const ratio = (median(of.service) / median(of.direct)).toFixed(3);
    process.stderr.write(`${key}: programmed in ${shown} ms, CRR ${ratio} of direct\n`);
  } finally {
    await stop();
    await deleteService(lab, `load-${mode}-${count}`);
  }
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
  const proxyNode = await createProxyNode(lab, bed.nodes[0]!);
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
    client: (argv) => podCommand(lab.record, client!, argv.map(insideTool)),
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
      await measure(lab, 'weir', weir, count, () => async () => {});
      for (const mode of ['iptables', 'nftables'] as const)
        await measure(lab, mode, bare, count, () => proxyNode.start(mode));
    }
  } finally {
    for (const child of servers) child.kill('SIGKILL');
    proxyNode.close();
    bed.close();
  }
});

/** A figure that is missing is more than the deadline, and says so. */
function waited(measure: string, times: readonly Waited[]): Measure {
  const missing = times.filter((each) => each === undefined).length;
  const known = times.map((each) => each ?? stepMs);
  return {
    measure: missing === 0 ? measure : `${measure} (${missing} of ${times.length} not within ${stepMs / 1000} s)`,
    unit: 'ms',
    median: median(known),
    most: Math.max(...known),
  };
}

const measures: Measure[] = [
  ...[...programming].map(([key, times]) => waited(`one more Service answers: ${key}`, times)),
  ...[...starting]
    .filter(([key]) => !key.startsWith('weir'))
    .map(([key, time]) => waited(`serves after a start: ${key}`, [time])),
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
