// What a crash of the agent costs: kill -9 under load, some seconds dead, a restart; connections and datagrams that were
// lost. A bare control runs beside it, because a machine at its limit loses packets all by itself.
import { parseArgs } from 'node:util';
import { podCommand, startAgent, stopAgent, waitForAgent } from '../lab/lab.ts';
import { createBed } from '../test/bed/bed.ts';
import { compileTool } from '../test/cluster/compile-tool.ts';
import { askSteadily, type SteadyCounts, serveSteady, startServer } from '../test/cluster/steady.ts';
import { addPods, withLab } from './bench-lab.ts';
import { type Measure, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    'dead-seconds': { type: 'string', default: '8' },
    width: { type: 'string', default: '4' },
  },
});
const deadMs = Number(options['dead-seconds']) * 1000;
const port = 7000;
const steady = compileTool('steady');
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** Each address several times: so many of each kind at once. */
const several = (addresses: readonly string[]) => Array(Number(options.width)).fill(addresses).flat() as string[];

const bed = await createBed({
  bare: true,
  pods: [
    { name: 'a', node: 0 },
    { name: 'b', node: 0 },
    { name: 'c', node: 1 },
  ],
});
const inBed = (pod: string, argv: readonly string[]) => ['nsenter', `--net=/run/netns/${bed.pod(pod).netns}`, ...argv];

const result = await withLab({ nodes: 2 }, async (lab) => {
  const [client, near, far] = await addPods(
    lab,
    [
      { node: 'node1', name: 'client', labels: { app: 'client' } },
      { node: 'node1', name: 'near', labels: { app: 'server' } },
      { node: 'node2', name: 'far', labels: { app: 'server' } },
    ],
    1,
  );
  await lab.apply([
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'server', namespace: 'default' },
      spec: {
        podSelector: { matchLabels: { app: 'server' } },
        ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }] }],
      },
    },
  ]);
  const servers = await Promise.all([
    serveSteady(lab.record, near!, port),
    serveSteady(lab.record, far!, port),
    startServer(inBed('b', [steady, 'serve', String(port)])),
    startServer(inBed('c', [steady, 'serve', String(port)])),
  ]);
  const ask = [steady, 'ask', String(port), '4'];
  const weir = askSteadily(
    podCommand(lab.record, client!, [...ask, ...several([...near!.addresses, ...far!.addresses])]),
  );
  const control = askSteadily(
    inBed('a', [...ask, ...several(['b', 'c'].flatMap((name) => [bed.pod(name).ipv4, bed.pod(name).ipv6]))]),
  );
  await pause(3_000);
  await stopAgent(lab.name, 'node1', 'kill');
  await pause(deadMs);
  await startAgent(lab.name, 'node1');
  await waitForAgent(lab.name, 'node1');
  await pause(5_000);
  const ended = { weir: await weir.stop(), control: await control.stop() };
  for (const server of servers) server.close();
  process.stderr.write(ended.weir.losses);
  return { weir: ended.weir.counts, control: ended.control.counts };
});
bed.close();

const line = (measure: string, of: (counts: SteadyCounts) => number, goal?: number): Measure => ({
  measure,
  unit: '',
  median: of(result.weir),
  bare: of(result.control),
  goal,
  rival: goal === undefined ? undefined : 0,
  met: goal === undefined ? undefined : of(result.weir) <= goal ? 'yes' : of(result.control) > 0 ? 'too noisy' : 'no',
});
printReport(
  'restart',
  [
    line('kept, new and UDP exchanges lost', (counts) => counts.lost, 0),
    line('packets of kept connections lost', (counts) => counts.retransmitted, 0),
    line('exchanges on kept connections', (counts) => counts.kept),
    line('new connections', (counts) => counts.new),
    line('datagrams', (counts) => counts.udp),
  ],
  options.json!,
);
process.exit(0);
