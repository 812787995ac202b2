// How long until a change counts for packets, on a node with 100 pods: a policy that is created and deleted through the
// API, with datagrams every 0.2 ms that show when it holds; and the first packet of a new pod to a pod of another node.
import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { addPod, callPlugin, deletePod, type LabPod, nodeExec, podCommand } from '../lab/lab.ts';
import { compileTool } from '../test/cluster/compile-tool.ts';
import { serveSteady } from '../test/cluster/steady.ts';
import { addPods, type BenchLab, root, waitFor, withLab } from './bench-lab.ts';
import { ensureTool } from './load/build.ts';
import { type Measure, median, printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    pods: { type: 'string', default: '100' },
    changes: { type: 'string', default: '100' },
    adds: { type: 'string', default: '30' },
  },
});
const flip = ensureTool(root, 'flip');
compileTool('steady');
const port = 7000;
const policies = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies';

/** Watches a path; `next` resolves with the time of the next change of this kind. */
function watchPath(command: readonly string[]) {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const seen: { kind: string; atMs: number }[] = [];
  const wakers = new Set<() => void>();
  let rest = '';
  child.stdout.on('data', (part) => {
    const lines = (rest + part).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const [kind = '', at] = line.split(' ');
      seen.push({ kind, atMs: Number(at) });
    }
    for (const wake of wakers) wake();
  });
  return {
    next(kind: 'open' | 'closed', deadlineMs = 5_000): Promise<number> {
      return new Promise((resolve, reject) => {
        const look = () => {
          const found = seen.findIndex((each) => each.kind === kind);
          if (found < 0) return;
          clearTimeout(timer);
          wakers.delete(look);
          resolve(seen.splice(0, found + 1).at(-1)!.atMs);
        };
        const timer = setTimeout(() => {
          wakers.delete(look);
          reject(new Error(`the path did not become ${kind}`));
        }, deadlineMs);
        wakers.add(look);
        look();
      });
    },
    start: () => child.stdin.write('\n'),
    stop: () => child.stdin.end(),
  };
}

/** CLOCK_MONOTONIC in ms, as the tool prints it. */
const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

const denyIngress = (name: string) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name, namespace: 'default' },
  spec: { podSelector: { matchLabels: { app: 'server' } }, policyTypes: ['Ingress'] },
});
const allowClients = (name: string, app: string) => ({
  ...denyIngress(name),
  spec: {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { app } } }] }],
  },
});

interface Times {
  readonly answeredMs: number[];
  readonly requestedMs: number[];
}

async function changes(lab: BenchLab, client: LabPod, server: LabPod): Promise<Record<'opens' | 'closes', Times>> {
  const times = {
    opens: { answeredMs: [], requestedMs: [] } as Times,
    closes: { answeredMs: [], requestedMs: [] } as Times,
  };
  const path = watchPath(podCommand(lab.record, client, [flip, server.addresses[0]!, String(port), '200']));
  path.start();
  await path.next('open');
  await lab.api.create(policies, denyIngress('deny'));
  await path.next('closed');
  const step = async (into: Times, kind: 'open' | 'closed', change: () => Promise<unknown>) => {
    const requested = nowMs();
    await change();
    const answered = nowMs();
    const at = await path.next(kind);
    // The agent may be told before the writer is: then it is done before the answer is here.
    into.answeredMs.push(Math.max(0, at - answered));
    into.requestedMs.push(at - requested);
  };
  for (let i = 0; i < Number(options.changes) / 2; i++) {
    await step(times.opens, 'open', () => lab.api.create(policies, allowClients('allow', 'client')));
    await step(times.closes, 'closed', () => lab.api.delete(`${policies}/allow`));
  }
  path.stop();
  await lab.api.delete(`${policies}/deny`);
  return times;
}

/** From ADD's return to the first answer from a pod of another node that lets only such pods in. */
async function firstPackets(lab: BenchLab, server: LabPod): Promise<number[]> {
  const times: number[] = [];
  await lab.api.create(policies, allowClients('newcomers', 'newcomer'));
  for (let i = 0; i < Number(options.adds); i++) {
    const pod = await addPod(lab.record, lab.api, {
      node: 'node1',
      name: `newcomer-${i}`,
      labels: { app: 'newcomer' },
    });
    // Again with somebody in its namespace who is ready to send, and an identity that the other node must learn.
    await callPlugin(lab.name, 'DEL', pod);
    await lab.api.patch(`/api/v1/namespaces/default/pods/${pod.name}`, { metadata: { labels: { turn: String(i) } } });
    await waitFor(
      'the other node to forget it',
      async () => {
        const known = await lab.agent<{ address: string }[]>('node2', '/v1/addresses');
        return !known.some((row) => pod.addresses.includes(row.address));
      },
      10_000,
    );
    const path = watchPath(podCommand(lab.record, pod, [flip, server.addresses[0]!, String(port), '200']));
    await nodeExec(lab.name, 'node1', ['true']); // takes as long as the sender's start
    await callPlugin(lab.name, 'ADD', pod);
    const added = nowMs();
    path.start();
    times.push(Math.max(0, (await path.next('open')) - added));
    path.stop();
    await deletePod(lab.record, lab.api, pod);
  }
  await lab.api.delete(`${policies}/newcomers`);
  return times;
}

async function measure(lab: BenchLab): Promise<Measure[]> {
  const [client, server, remote] = await addPods(
    lab,
    [
      { node: 'node1', name: 'client', labels: { app: 'client' } },
      { node: 'node1', name: 'server', labels: { app: 'server' } },
      { node: 'node2', name: 'remote', labels: { app: 'server' } },
    ],
    1,
  );
  await addPods(
    lab,
    Array.from({ length: Number(options.pods) - 2 }, (_, i) => ({
      node: 'node1',
      name: `other-${i}`,
      labels: { app: `other-${i % 10}` },
    })),
  );
  const servers = [await serveSteady(lab.record, server!, port), await serveSteady(lab.record, remote!, port)];
  const { opens, closes } = await changes(lab, client!, server!);
  const first = await firstPackets(lab, remote!);
  for (const each of servers) each.close();

  const rows = (
    name: string,
    times: readonly number[],
    goals: readonly [number, number] | undefined,
    rivals: readonly number[],
  ) => {
    const sorted = times.toSorted((a, b) => a - b);
    return ([0.5, 0.99] as const).map((share, i): Measure => {
      const value = quantile(sorted, share);
      const goal = goals?.[i];
      return {
        measure: `${name}, p${share * 100}`,
        unit: 'ms',
        median: value,
        goal,
        rival: rivals[i],
        met: goal === undefined ? undefined : value < goal ? 'yes' : 'no',
      };
    });
  };
  const answered = [...opens.answeredMs, ...closes.answeredMs];
  return [
    ...rows(`policy change → packet, ${options.pods} pods`, answered, [3, 10], [16, 45]),
    ...rows('the same with the API server’s own time', [...opens.requestedMs, ...closes.requestedMs], undefined, []),
    { measure: 'of these: opening', unit: 'ms', median: median(opens.answeredMs) },
    { measure: 'of these: closing', unit: 'ms', median: median(closes.answeredMs) },
    ...rows('ADD → first packet across nodes', first, [10, 10], [8]),
  ];
}

printReport('policy-latency', await withLab({ nodes: 2 }, measure), options.json!);
