// Direct server return against translating: a client outside asks a node port of one node, whose only backend is on the
// other. Round trips a second on a kept connection, and the bytes that the first node sends and receives for each.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs, promisify } from 'node:util';
import { podCommand, startAgent, stopAgent, waitForAgent, worldCommand } from '../lab/lab.ts';
import { netnsName } from '../lab/state.ts';
import { addPods, type BenchLab, insideRoot, root, waitFor, withLab } from './bench-lab.ts';
import { ensureLoad } from './load/build.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '1' },
  },
});
const run = promisify(execFile);
const load = ensureLoad(root);
const namespace = 'bench-return';
const port = 5001;
const modes = {
  snat: ['--lb-mode=snat'],
  'dsr, option': ['--lb-mode=dsr'],
  'dsr, tunnel': ['--lb-mode=dsr', '--dsr-dispatch=tunnel'],
} as const;
const nodes = ['node1', 'node2'];
const results = new Map<string, { rate: number[]; bytes: number[]; direct: number[] }>();

/** What a node's device has carried, both ways. */
async function deviceBytes(lab: BenchLab, node: string): Promise<number> {
  const { stdout } = await run('ip', ['-n', netnsName(lab.name, node), '-s', '-j', 'link', 'show', 'dev', 'eth0']);
  const [{ stats64 }] = JSON.parse(stdout) as [{ stats64: { rx: { bytes: number }; tx: { bytes: number } } }];
  return stats64.rx.bytes + stats64.tx.bytes;
}

async function roundTrips(lab: BenchLab, address: string, at: number): Promise<number> {
  const [command, ...args] = await worldCommand(lab.name, [load, 'rr', address, String(at), '1', options.seconds!]);
  const { stdout } = await run(command!, args);
  const { count } = JSON.parse(stdout) as { count: number };
  return count;
}

await withLab({ nodes: nodes.length }, async (lab) => {
  await lab.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }]);
  const [server] = await addPods(lab, [{ name: 'server', namespace, node: 'node2' }]);
  const backends = { IPv4: '', IPv6: '' };
  for (const address of server!.addresses) backends[address.includes(':') ? 'IPv6' : 'IPv4'] = address;
  await lab.apply([
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'server', namespace },
      spec: {
        type: 'NodePort',
        ipFamilyPolicy: 'RequireDualStack',
        ports: [{ port, targetPort: port, nodePort: 30_501 }],
      },
    },
    ...Object.entries(backends).map(([addressType, address]) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `server-${addressType.toLowerCase()}`,
        namespace,
        labels: { 'kubernetes.io/service-name': 'server' },
      },
      addressType,
      ports: [{ port }],
      endpoints: [{ addresses: [address], nodeName: 'node2', conditions: { ready: true } }],
    })),
  ]);
  const [command, ...args] = podCommand(lab.record, server!, [
    load.replace(root, `${insideRoot}/`),
    'serve',
    String(port),
  ]);
  const serving = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(serving.stdout, 'data');
  const first = (await lab.status()).nodes.find((node) => node.name === 'node1')!.addresses;
  try {
    for (let round = 0; round < Number(options.rounds); round++)
      for (const [mode, agentOptions] of Object.entries(modes)) {
        for (const node of nodes) {
          await stopAgent(lab.name, node, 'ask');
          await startAgent(lab.name, node, agentOptions);
          await waitForAgent(lab.name, node);
        }
        for (const address of first) {
          const family = address.includes(':') ? 'IPv6' : 'IPv4';
          await waitFor('the node port', async () => (await roundTrips(lab, address, 30_501)) > 10, 30_000, 200);
          const of = results.get(`${mode}, ${family}`) ?? { rate: [], bytes: [], direct: [] };
          results.set(`${mode}, ${family}`, of);
          of.direct.push((await roundTrips(lab, backends[family], port)) / Number(options.seconds));
          const before = await deviceBytes(lab, 'node1');
          const count = await roundTrips(lab, address, 30_501);
          of.bytes.push(((await deviceBytes(lab, 'node1')) - before) / count);
          of.rate.push(count / Number(options.seconds));
        }
      }
  } finally {
    serving.kill('SIGKILL');
  }
});

const measures: Measure[] = [...results].flatMap(([name, { rate, bytes, direct }]) => [
  {
    measure: `round trips, ${name}`,
    unit: '/s',
    median: median(rate),
    'to the pod itself': median(direct),
    ratio: median(rate) / median(direct),
  },
  { measure: `bytes through the first node for each, ${name}`, unit: '', median: median(bytes) },
]);
printReport('direct-return', measures, options.json!);
process.exit(0);
