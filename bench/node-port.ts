// Packets a second through a node, end to end: small UDP packets from outside to a node port whose backends are on another
// node come in over the node's device and leave over it. Weir in XDP and in tc, the real kube-proxy in both of its modes, and
// plain routing to the backend's own address beside them, in turns. One CPU does all of it, sending included; the other end
// of the wire counts what arrives, and drops it. Only namespaces made for it see the packets.
// usage: node-port.ts [--rounds N] [--seconds N] [--flows N] [--json]
import { execFile } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';
import { ProgType } from '../src/kernel/bpf-syscall.ts';
import { getLink } from '../src/kernel/links.ts';
import { setNeighbour } from '../src/kernel/neighbours.ts';
import { withNetns } from '../src/kernel/netns.ts';
import { loadInstructions, returnProgram } from '../src/kernel/raw-program.ts';
import { attachXdpPinned, detachXdpPinned } from '../src/kernel/xdp-attachment.ts';
import { type Bed, type BedNode, type BedPod, createBed } from '../test/bed/bed.ts';
import { createBedServices } from '../test/bed/services.ts';
import { type BenchLab, root, waitFor, withLab } from './bench-lab.ts';
import { ensureTool } from './load/build.ts';
import { createProxyNode } from './proxy-node.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '0.5' },
    /** Of the packets that each begin a connection. */
    flows: { type: 'string', default: '20000' },
  },
});
const run = promisify(execFile);
const flood = ensureTool(root, 'flood');
const namespace = 'bench-node-port';
const nodePort = 30_500;
const backendPort = 8080;
const knownFlows = 256;
const client = '10.9.0.200';
const modes = ['routed', 'Weir, XDP', 'Weir, tc', 'kube-proxy, iptables', 'kube-proxy, nftables'] as const;
type Mode = (typeof modes)[number];
const rates = { known: new Map<Mode, number[]>(), fresh: new Map<Mode, number[]>() };

const pinPath = (name: string) => `/sys/fs/bpf/weir-bench-${process.pid}-${name}`;
const xdpDrop = 1;

/** The two ends of a bed's wire know each other, so that nothing has to be asked; the far one drops all that it gets. */
function prepare(bed: Bed, name: string): () => void {
  const [near, far] = [bed.nodes[0]!, bed.nodes[1]!];
  const macs = [near, far].map((node) => getLink(node.netlink, 'eth0')!.mac);
  setNeighbour(near.netlink, { ifindex: near.deviceIfindex, address: far.ipv4, mac: macs[1]! });
  setNeighbour(near.netlink, { ifindex: near.deviceIfindex, address: client, mac: macs[1]! });
  setNeighbour(far.netlink, { ifindex: far.deviceIfindex, address: near.ipv4, mac: macs[0]! });
  const program = loadInstructions({ type: ProgType.xdp, instructions: returnProgram(xdpDrop) });
  const path = pinPath(name);
  const to = { ifindex: far.deviceIfindex, programFd: program, mode: 'native', pinPath: path } as const;
  withNetns(far.netnsFd, () => attachXdpPinned(to));
  return () => detachXdpPinned(path);
}

async function arrivedPackets(node: BedNode): Promise<number> {
  const { stdout } = await run('ip', ['-n', node.netns, '-s', '-j', 'link', 'show', 'dev', 'eth0']);
  return (JSON.parse(stdout) as [{ stats64: { rx: { packets: number } } }])[0].stats64.rx.packets;
}

let firstFlow = knownFlows;
/** Sends, and answers how many arrived and how many that is a second. */
async function send(bed: Bed, to: string, port: number, what: { flows: number; packets: number }) {
  const [near, far] = [bed.nodes[0]!, bed.nodes[1]!];
  const { flows, packets } = what;
  const first = packets === 0 ? 0 : firstFlow;
  if (packets > 0) firstFlow += flows;
  const before = await arrivedPackets(far);
  const mac = getLink(near.netlink, 'eth0')!.mac;
  const { stdout } = await run('nsenter', [
    ...[`--net=/run/netns/${far.netns}`, 'taskset', '-c', '0', flood, 'eth0', mac, client, to, String(port)],
    ...[flows, first, packets, options.seconds!].map(String),
  ]);
  const { seconds } = JSON.parse(stdout) as { seconds: number };
  const arrived = (await arrivedPackets(far)) - before;
  return { arrived, rate: arrived / seconds };
}

async function measure(mode: Mode, bed: Bed, to: string, port: number): Promise<void> {
  const known = { flows: knownFlows, packets: 0 };
  // Some may be lost while rules are written, and neighbours talk to each other.
  const some = { flows: 64, packets: 64 };
  const through = async () => (await send(bed, to, port, some)).arrived >= 60;
  await waitFor(`packets to arrive (${mode})`, through, 60_000, 200);
  const add = (kind: keyof typeof rates, value: number) =>
    rates[kind].set(mode, [...(rates[kind].get(mode) ?? []), value]);
  const flows = Number(options.flows);
  add('fresh', (await send(bed, to, port, { flows, packets: flows })).rate);
  add('known', (await send(bed, to, port, known)).rate);
}

async function makeService(lab: BenchLab, backends: readonly string[]): Promise<void> {
  const metadata = { name: 'server', namespace };
  await lab.apply([
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: { type: 'NodePort', ports: [{ protocol: 'UDP', port: 80, targetPort: backendPort, nodePort }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'server' } },
      addressType: 'IPv4',
      ports: [{ protocol: 'UDP', port: backendPort }],
      endpoints: backends.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    },
  ]);
}

await withLab({ nodes: 1 }, async (lab) => {
  const pods = [{ name: 'far', node: 1 }];
  const [bare, weir] = [await createBed({ bare: true, pods }), await createBed({ pods })];
  const services = createBedServices(weir);
  const proxyNode = await createProxyNode(lab, bare.nodes[0]!);
  const undo = [prepare(bare, 'bare'), prepare(weir, 'weir')];
  try {
    const addresses = Array.from({ length: 10 }, (_, i) => `10.244.1.${i + 1}`);
    const backends = addresses.map((ipv4): BedPod => ({ ...weir.pod('far'), ipv4 }));
    const [node] = weir.nodes;
    services.add({
      ipv4: node!.ipv4,
      ipv6: node!.ipv6,
      port: nodePort,
      targetPort: backendPort,
      protocol: 'UDP',
      kind: 'NodePort',
      backends,
    });
    await makeService(lab, addresses);
    const xdp = {
      ifindex: node!.deviceIfindex,
      programFd: services.xdp[0]!.program('balance_xdp').fd,
      mode: 'native',
      pinPath: pinPath('xdp'),
    } as const;
    for (let round = 0; round < Number(options.rounds); round++)
      for (const mode of modes) {
        if (mode === 'routed') await measure(mode, bare, addresses[0]!, backendPort);
        else if (mode === 'Weir, tc') await measure(mode, weir, node!.ipv4, nodePort);
        else if (mode === 'Weir, XDP') {
          withNetns(node!.netnsFd, () => attachXdpPinned(xdp));
          await measure(mode, weir, node!.ipv4, nodePort);
          detachXdpPinned(xdp.pinPath);
        } else {
          const stop = proxyNode.start(mode === 'kube-proxy, iptables' ? 'iptables' : 'nftables');
          await measure(mode, bare, bare.nodes[0]!.ipv4, nodePort).finally(stop);
        }
      }
  } finally {
    detachXdpPinned(pinPath('xdp'));
    for (const each of undo) each();
    proxyNode.close();
    services.close();
    bare.close();
    weir.close();
  }
});

const titles = { known: 'known connections', fresh: 'each packet a new connection' } as const;
const measures = (Object.keys(titles) as (keyof typeof titles)[]).flatMap((kind) =>
  modes.map((mode): Measure => {
    const values = rates[kind].get(mode)!;
    const routed = median(rates[kind].get('routed')!);
    return {
      measure: `UDP to a node port, IPv4, ${titles[kind]}: ${mode}`,
      unit: '/s',
      median: median(values),
      least: Math.min(...values),
      most: Math.max(...values),
      ...(mode === 'routed' ? {} : { ratio: median(values) / routed }),
    };
  }),
);
printReport('node-port', measures, options.json!);
process.exit(0);
