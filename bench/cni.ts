// How long a pod waits for its network: the CNI plugin as a whole process, one after another and 16 at once, in turns with
// the reference plugins `bridge` and `host-local` on the same node.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findGo } from '../lab/go-toolchain.ts';
import { nodeExec, run, silentProgress } from '../lab/lab.ts';
import { type BenchLab, insideRoot, root, waitFor, withLab } from './bench-lab.ts';
import { ensureTool } from './load/build.ts';
import { type Measure, median, printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: { json: { type: 'boolean', default: false }, rounds: { type: 'string', default: '6' } },
});
const rounds = Number(options.rounds);
const perRound = 20;
const atOnce = 16;
const perBurst = 48;
const node = 'node1';
const referenceVersion = 'v1.9.1';

/** The reference plugins, built from their Go module; the folder they are in. */
async function ensureReference(): Promise<string> {
  const folder = join(root, 'build', `cni-plugins-${referenceVersion}`);
  if (!existsSync(join(folder, 'bridge')) || !existsSync(join(folder, 'host-local'))) {
    process.stderr.write(`building the reference plugins ${referenceVersion}\n`);
    mkdirSync(folder, { recursive: true });
    const module = 'github.com/containernetworking/plugins/plugins';
    const packages = ['main/bridge', 'ipam/host-local'].map((each) => `${module}/${each}@${referenceVersion}`);
    await run([await findGo(silentProgress), 'install', '-trimpath', ...packages], {
      env: { GOBIN: folder, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '' },
    });
  }
  return folder;
}

interface Contender {
  readonly name: string;
  readonly plugin: string;
  readonly path: string;
  readonly config: string;
  readonly addMs: number[];
  readonly delMs: number[];
  readonly perSecond: number[];
}

const contender = (name: string, folder: string, program: string): Contender => ({
  name,
  plugin: `${folder}/${program}`,
  path: folder,
  config: `/tmp/${name}.conf`,
  addMs: [],
  delMs: [],
  perSecond: [],
});

async function measure(lab: BenchLab, reference: string): Promise<Measure[]> {
  const weir = contender('weir', '/opt/cni/bin', 'weir-cni');
  const bridge = contender('bridge', `${insideRoot}/build/${reference.split('/').at(-1)}`, 'bridge');
  const configs = {
    [weir.config]: { cniVersion: '1.0.0', name: 'weir', type: 'weir-cni', mtu: 1500 },
    [bridge.config]: {
      cniVersion: '1.0.0',
      name: 'reference',
      type: 'bridge',
      bridge: 'reference0',
      isGateway: true,
      ipam: {
        type: 'host-local',
        dataDir: '/tmp/host-local',
        ranges: [[{ subnet: '10.99.0.0/16' }], [{ subnet: 'fd99::/64' }]],
        routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
      },
    },
  };
  for (const [file, config] of Object.entries(configs))
    await nodeExec(lab.name, node, ['sh', '-c', 'cat > "$0"', file], { stdin: JSON.stringify(config) });

  // The pods and their namespaces are there before: only the plugin is measured.
  const most = Math.max(perRound, perBurst);
  const names = Array.from({ length: most }, (_, i) => `pod-${i}`);
  await waitFor(
    'pods to be accepted',
    async () => {
      for (const name of names.splice(0)) {
        const made = await lab.api
          .create('/api/v1/namespaces/default/pods', {
            apiVersion: 'v1',
            kind: 'Pod',
            metadata: { name, labels: { app: 'bench' } },
            spec: {
              nodeName: node,
              containers: [{ name: 'main', image: 'none' }],
              automountServiceAccountToken: false,
            },
          })
          .catch(() => undefined);
        if (made === undefined) names.push(name);
      }
      return names.length === 0;
    },
    30_000,
  );
  const call = async (who: Contender, command: 'ADD' | 'DEL', lines: readonly string[], width: number) => {
    const argv = [`${insideRoot}/build/cni-load`, command, who.plugin, who.path, who.config, String(width)];
    const done = await nodeExec(lab.name, node, argv, { stdin: `${lines.join('\n')}\n` });
    if (done.status !== 0) throw new Error(`${who.name} ${command}: ${done.stderr}`);
    const printed = done.stdout.trim().split('\n');
    const { seconds } = JSON.parse(printed.pop()!) as { seconds: number };
    return { timesMs: printed.map(Number), perSecond: lines.length / seconds };
  };
  const round = async (who: Contender, count: number, width: number) => {
    const ids = Array.from({ length: count }, () => randomBytes(16).toString('hex'));
    const namespaces = ids.map((id) => `bench-${id.slice(0, 10)}`);
    const make = 'for n in "$@"; do ip netns add "$n" && ip -n "$n" link set lo up; done';
    await nodeExec(lab.name, node, ['sh', '-c', make, 'make', ...namespaces]);
    const lines = ids.map(
      (id, i) => `${id} /run/netns/${namespaces[i]} IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-${i}`,
    );
    const added = await call(who, 'ADD', lines, width);
    const deleted = await call(who, 'DEL', lines, width);
    await nodeExec(lab.name, node, ['sh', '-c', 'for n in "$@"; do ip netns delete "$n"; done', 'end', ...namespaces]);
    return { added, deleted };
  };
  const contenders = [weir, bridge];
  for (const who of contenders) await round(who, 2, 1);
  for (let i = 0; i < rounds; i++) {
    for (const who of contenders) {
      const { added, deleted } = await round(who, perRound, 1);
      who.addMs.push(...added.timesMs);
      who.delMs.push(...deleted.timesMs);
      who.perSecond.push((await round(who, perBurst, atOnce)).added.perSecond);
    }
    process.stderr.write(`round ${i + 1} of ${rounds}\n`);
  }
  return report(weir, bridge);
}

function report(weir: Contender, bridge: Contender): Measure[] {
  const sorted = (who: Contender, which: 'addMs' | 'delMs') => who[which].toSorted((a, b) => a - b);
  const line = (measure: string, which: 'addMs' | 'delMs', share: number, goal: number, rival?: number): Measure => {
    const value = quantile(sorted(weir, which), share);
    const reference = quantile(sorted(bridge, which), share);
    return {
      measure,
      unit: 'ms',
      median: value,
      reference,
      ratio: value / reference,
      goal,
      rival,
      met: value < goal ? 'yes' : 'no',
    };
  };
  const perSecond = median(weir.perSecond);
  return [
    line('ADD, one after another, p50', 'addMs', 0.5, 25, 220),
    line('ADD, one after another, p99', 'addMs', 0.99, 60, 493),
    {
      measure: `ADD, ${atOnce} at once`,
      unit: '/s',
      median: perSecond,
      least: Math.min(...weir.perSecond),
      reference: median(bridge.perSecond),
      ratio: perSecond / median(bridge.perSecond),
      goal: 60,
      rival: 3.3,
      met: perSecond >= 60 ? 'yes' : 'no',
    },
    line('DEL, one after another, p50', 'delMs', 0.5, 20, 56),
  ];
}

const reference = await ensureReference();
ensureTool(root, 'cni-load');
// A large block: freed addresses rest, and hundreds are freed here within a minute.
const measures = await withLab({ nodes: 1, operatorOptions: ['--node-mask-v4=20'] }, (lab) => measure(lab, reference));
printReport('cni', measures, options.json!);
