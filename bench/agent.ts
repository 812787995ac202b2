// What an agent costs: its start, its memory fresh and with many pods, its CPU when nothing happens, and what it keeps
// in the kernel.
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { startAgent, stopAgent } from '../lab/lab.ts';
import { openPinnedMap } from '../src/kernel/bpf-map.ts';
import { listPrograms, objectMemoryBytes } from '../src/kernel/bpf-stats.ts';
import { addPods, type BenchLab, cpuSeconds, residentBytes, waitFor, withLab } from './bench-lab.ts';
import { type Measure, median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    pods: { type: 'string', default: '300' },
    'idle-seconds': { type: 'string', default: '20' },
    starts: { type: 'string', default: '5' },
  },
});
const node = 'node1';
const mib = 2 ** 20;

async function agentPid(lab: BenchLab): Promise<number> {
  return (await lab.status()).nodes.find((each) => each.name === node)!.agentPid!;
}

/**
 * From the start of the process until it says that it is healthy; every pod has the current programs before. Its CPU time
 * until then says more on a machine that does other things as well.
 */
async function start(lab: BenchLab): Promise<{ ms: number; cpuMs: number }> {
  await stopAgent(lab.name, node, 'kill');
  const started = performance.now();
  await startAgent(lab.name, node);
  await waitFor(
    'the agent to be healthy',
    async () => (await lab.agent<{ healthy: boolean }>(node, '/v1/health')).healthy,
    30_000,
    5,
  );
  const ms = performance.now() - started;
  return { ms, cpuMs: cpuSeconds(await agentPid(lab)) * 1000 };
}

async function starts(lab: BenchLab): Promise<{ ms: number; cpuMs: number }> {
  const times: { ms: number; cpuMs: number }[] = [];
  for (let i = 0; i < Number(options.starts); i++) times.push(await start(lab));
  return { ms: median(times.map((each) => each.ms)), cpuMs: median(times.map((each) => each.cpuMs)) };
}

async function mapBytes(lab: BenchLab): Promise<number> {
  const { initPid } = (await lab.status()).nodes.find((each) => each.name === node)!;
  const folder = `/proc/${initPid}/root/sys/fs/bpf/weir/maps`;
  return readdirSync(folder).reduce((sum, name) => {
    const map = openPinnedMap(`${folder}/${name}`);
    const bytes = objectMemoryBytes(map.fd);
    map.close();
    return sum + bytes;
  }, 0);
}

/** A start is done with everything, tidying too, so long after it is healthy. */
const settleMs = 6_000;

async function idleCores(lab: BenchLab): Promise<number> {
  const pid = await agentPid(lab);
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  const seconds = Number(options['idle-seconds']);
  const before = cpuSeconds(pid);
  const from = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return (cpuSeconds(pid) - before) / ((performance.now() - from) / 1000);
}

const below = (measure: string, unit: string, value: number, goal: number, rival?: number): Measure => ({
  measure,
  unit,
  median: value,
  goal,
  rival,
  met: value < goal ? 'yes' : 'no',
});

const programsBefore = listPrograms().length;
const measures = await withLab({ nodes: 1, operatorOptions: ['--node-mask-v4=20'] }, async (lab) => {
  const pods = Number(options.pods);
  const startWithout = await starts(lab);
  // What a start needs and no longer uses goes within the first seconds.
  const idleWithout = await idleCores(lab);
  const fresh = residentBytes(await agentPid(lab));
  await addPods(
    lab,
    Array.from({ length: pods }, (_, i) => ({ node, name: `pod-${i}`, labels: { app: `app-${i % 50}` } })),
  );
  const grown = residentBytes(await agentPid(lab));
  const programs = listPrograms().length - programsBefore;
  const startWith = await starts(lab);
  const idleWith = await idleCores(lab);
  const restarted = residentBytes(await agentPid(lab));
  return [
    below('start → healthy, no pods', 'ms', startWithout.ms, 1000, 2200),
    { measure: 'CPU time until then, no pods', unit: 'ms', median: startWithout.cpuMs },
    below(`start → healthy, ${pods} pods on current programs`, 'ms', startWith.ms, 1000, 14_700),
    { measure: `CPU time until then, ${pods} pods`, unit: 'ms', median: startWith.cpuMs },
    below('memory, fresh', 'MiB', fresh / mib, 120, 210),
    below(`memory, ${pods} pods that it has added`, 'MiB', grown / mib, 150, 300),
    below(`memory, ${pods} pods after a restart`, 'MiB', restarted / mib, 150, 300),
    below('CPU when idle, no pods', 'cores', idleWithout, 0.01),
    below(`CPU when idle, ${pods} pods`, 'cores', idleWith, 0.01),
    below(`BPF maps of a node, ${pods} pods`, 'MiB', (await mapBytes(lab)) / mib, 100, 317),
    below(`programs loaded, ${pods} pods`, '', programs, 40, 2154),
  ];
});
printReport('agent', measures, options.json!);
