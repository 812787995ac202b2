// A real agent under load: what flows cost it, and what is lost, while two pods of its node open connections and one client
// follows all flows. At a fixed rate, and as fast as they can; and with a hundred thousand datagrams a second, each of which
// begins a connection of its own, when all that counts is that what is lost is told.
// usage: flow-load.ts [--seconds N] [--flood-seconds N] [--json]
import { execFile, spawn } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';
import { podCommand } from '../lab/lab.ts';
import { addPods, type BenchLab, cpuSeconds, insideRoot, residentBytes, root, waitFor, withLab } from './bench-lab.ts';
import { ensureLoad, ensureTool } from './load/build.ts';
import { type Measure, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '20' },
    'flood-seconds': { type: 'string', default: '60' },
  },
});
const run = promisify(execFile);
const seconds = Number(options.seconds);
const node = 'node1';
const port = 5001;
const load = ensureLoad(root).replace(root, `${insideRoot}/`);
const flood = ensureTool(root, 'flood').replace(root, `${insideRoot}/`);
const floodRate = 100_000;
const mib = 2 ** 20;

interface Counts {
  readonly events: number;
  readonly events_lost: number;
}

async function counts(lab: BenchLab): Promise<Counts> {
  return (await lab.agent<{ counters: Counts }>(node, '/v1/status')).counters;
}

/** Flows that the agent has made of events, and what it has told of losses. */
interface Flows {
  readonly seenFlows: number;
  readonly lostInKernel: number;
  readonly heldBack: number;
}

const flowsOf = (lab: BenchLab) => lab.agent<Flows>(node, '/v1/flow-status');

/** Follows all flows of the node; how many it was given, and told that it was not. */
function follow(lab: BenchLab) {
  const child = spawn(
    `${root}/bin/weir`,
    ['observe', '--context', lab.name, '--node', node, '-f', '-o', 'jsonpb', '--field-mask', 'uuid'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const told = { flows: 0, lost: 0 };
  let rest = '';
  child.stdout.on('data', (part: Buffer) => {
    const lines = (rest + part.toString('latin1')).split('\n');
    rest = lines.pop()!;
    for (const line of lines)
      if (line.includes('"lost_events"')) told.lost += Number(/"num_events_lost":"?(\d+)/.exec(line)?.[1] ?? 0);
      else told.flows++;
  });
  return { told, stop: () => child.kill('SIGTERM') };
}

const commandOf = ([command = '', ...args]: readonly string[]) => [command, args] as const;

const measures = await withLab({ nodes: 1 }, async (lab): Promise<Measure[]> => {
  const [client, server] = await addPods(
    lab,
    ['client', 'server'].map((name) => ({ node, name, labels: { app: name } })),
  );
  const inPod = (pod: typeof client, argv: string[]) =>
    podCommand(lab.record, pod!, [
      'sh',
      '-c',
      'sysctl -qw net.ipv4.tcp_max_tw_buckets=0 net.ipv4.ip_local_port_range="1024 65535"; exec "$@"',
      'sh',
      ...argv,
    ]);
  const [program = '', ...args] = inPod(server, [load, 'serve', String(port)]);
  const serving = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => serving.stdout.once('data', resolve));
  const address = server!.addresses.find((each) => !each.includes(':'))!;
  const pid = (await lab.status()).nodes.find((each) => each.name === node)!.agentPid!;
  const follower = follow(lab);
  const measured: Measure[] = [];
  const [warm = '', ...warmArgs] = inPod(client, [load, 'crr', address, String(port), '1', '0.2', '50']);
  await waitFor(
    'the client to follow',
    async () => {
      await run(warm, warmArgs);
      return follower.told.flows > 0;
    },
    30_000,
    100,
  );
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const settled = async () => {
    let before = -1;
    await waitFor(
      'all flows to be told',
      async () => {
        const now = follower.told.flows + follower.told.lost;
        const done = now === before;
        before = now;
        return done;
      },
      60_000,
      1_000,
    );
  };
  for (const rate of [5_000, 0]) {
    const before = await counts(lab);
    const flowsBefore = { ...follower.told };
    const cpu = cpuSeconds(pid);
    const from = performance.now();
    const [command = '', ...rest] = inPod(client, [
      load,
      'crr',
      address,
      String(port),
      '16',
      String(seconds),
      ...(rate > 0 ? [String(rate)] : []),
    ]);
    const { stdout } = await run(command, rest);
    const cores = (cpuSeconds(pid) - cpu) / ((performance.now() - from) / 1000);
    const result = JSON.parse(stdout) as { count: number; seconds: number };
    await settled();
    const after = await counts(lab);
    const name = rate > 0 ? `${rate} connections/s` : 'as fast as they can';
    const lost = after.events_lost - before.events_lost;
    measured.push(
      { measure: `${name}: connections`, unit: '/s', median: result.count / result.seconds },
      {
        measure: `${name}: events of the datapath`,
        unit: '/s',
        median: (after.events - before.events) / result.seconds,
      },
      {
        measure: `${name}: lost in the kernel’s ring`,
        unit: '',
        median: lost,
        ...(rate > 0 && { goal: 0, rival: 0.5, met: lost === 0 ? 'yes' : 'no' }),
      },
      { measure: `${name}: flows that a client was given`, unit: '', median: follower.told.flows - flowsBefore.flows },
      {
        measure: `${name}: flows that it was told it was not given`,
        unit: '',
        median: follower.told.lost - flowsBefore.lost,
      },
      {
        measure: `${name}: the agent, one client following`,
        unit: 'cores',
        median: cores,
        ...(rate > 0
          ? { goal: 0.2, rival: 0.73, met: cores < 0.2 ? 'yes' : 'no' }
          : { goal: 1, met: cores < 1 ? 'yes' : 'no' }),
      },
    );
  }
  {
    const { stdout: link } = await run(...commandOf(inPod(client, ['ip', '-j', 'link', 'show', 'dev', 'eth0'])));
    const [{ address: mac }] = JSON.parse(link) as [{ address: string }];
    const from = client!.addresses.find((each) => !each.includes(':'))!;
    const [before, flowsBefore, toldBefore] = [await counts(lab), await flowsOf(lab), { ...follower.told }];
    const cpu = cpuSeconds(pid);
    // The node's end of a pod's pair has the pod's address but for the first byte.
    const argv = [flood, 'eth0', mac.replace(/^0a/, '0e'), from, address, '6000', '100000000', '0', '0'];
    const { stdout } = await run(...commandOf(inPod(client, [...argv, options['flood-seconds']!, String(floodRate)])));
    const { sent, seconds: took } = JSON.parse(stdout) as { sent: number; seconds: number };
    const cores = (cpuSeconds(pid) - cpu) / took;
    await settled();
    const [after, flows] = [await counts(lab), await flowsOf(lab)];
    const since = (name: keyof Counts) => after[name] - before[name];
    const made = (name: keyof Flows) => flows[name] - flowsBefore[name];
    const given = follower.told.flows - toldBefore.flows;
    const told = follower.told.lost - toldBefore.lost;
    const untold = made('seenFlows') + made('lostInKernel') + made('heldBack') - given - told;
    const name = `${floodRate} datagrams/s of flows of their own`;
    measured.push(
      { measure: `${name}: sent`, unit: '/s', median: sent / took },
      { measure: `${name}: events of the datapath`, unit: '/s', median: since('events') / took },
      { measure: `${name}: lost in the kernel’s ring`, unit: '', median: since('events_lost') },
      { measure: `${name}: flows made of them`, unit: '/s', median: made('seenFlows') / took },
      { measure: `${name}: flows that a client was given`, unit: '/s', median: given / took },
      { measure: `${name}: flows that it was told it was not given`, unit: '/s', median: told / took },
      {
        measure: `${name}: neither given nor told`,
        unit: '',
        median: untold,
        goal: 0,
        met: untold === 0 ? 'yes' : 'no',
      },
      {
        measure: `${name}: the agent, one client following`,
        unit: 'cores',
        median: cores,
        goal: 1,
        met: cores < 1 ? 'yes' : 'no',
      },
    );
  }
  measured.push({
    measure: 'memory of the agent afterwards',
    unit: 'MiB',
    median: residentBytes(pid) / mib,
    goal: 300,
    met: residentBytes(pid) < 300 * mib ? 'yes' : 'no',
  });
  follower.stop();
  serving.kill('SIGKILL');
  return measured;
});
printReport('flow-load', measures, options.json!);
