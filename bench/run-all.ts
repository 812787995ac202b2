// Runs every benchmark, one after another, and writes bench/RESULTS.md: what was measured, on what, what was wanted, and
// whether it came true. For a quiet machine: nothing else should run.
// usage: run-all.ts [--only NAME...]      with --only the other sections of RESULTS.md stay as they were
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { attempt } from '../lab/lab.ts';
import { createBed } from '../test/bed/bed.ts';
import { type Measure, showNumber } from './report.ts';

const { values: options } = parseArgs({ options: { only: { type: 'string', multiple: true } } });
const root = fileURLToPath(new URL('..', import.meta.url));

/** What each benchmark is about. The first ones are the most sensitive to a machine that has become warm or full. */
const benches: Readonly<Record<string, string>> = {
  network: 'Pod to pod through the datapath, policy and flow events on, against bare routed namespaces in turns',
  packets: 'The pod program for one fresh packet, by test-run; the cost of the measurement is subtracted',
  balancer:
    'The balancer for one fresh packet from outside, by test-run: 100 backends, Maglev; the cost of the measurement is subtracted',
  services: 'A ClusterIP in the system call against the backend’s own address, in turns',
  'direct-return': 'Direct server return against translating, from outside by one node to a pod of another',
  'node-port': 'UDP packets from outside to a node port, over the node to backends elsewhere, on one CPU, in turns',
  'services-scale': 'Ten thousand Services of ten backends, from rows to maps',
  'kube-proxy': 'Services beside the real kube-proxy in both of its modes, following the same API server',
  cni: 'The CNI plugin as a whole process; beside it (reference) `bridge` with `host-local` on the same node',
  'policy-latency': 'From a change to the first packet that it concerns',
  restart: 'kill -9 of an agent under load, 8 s dead, a restart; beside it (bare) the same load without Weir',
  agent: 'What an agent takes of its node',
  'policy-compile': 'Compiling policy on one node',
  'policy-tools': 'The tools for policies, offline: checking files, and comparing two sets of policies',
  'policy-scale': 'Policy at the size of a large cluster, and what packets cost beside it',
  processes: 'The process of every connection: what knowing it costs, against bare routed namespaces in turns',
  'flow-load': 'A real agent while pods open connections and a client follows all flows',
  'flow-pipeline': 'Events from the kernel’s ring to flows, on one core',
  relay:
    'Flows of fifty agents through a relay to one client, over the real wire with certificates, in processes of their own',
  lab: 'The lab',
};

interface Report {
  readonly name: string;
  readonly date: string;
  readonly machine: string;
  readonly measures: readonly Measure[];
}

function runBench(name: string): Promise<Report | string> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [`bench/${name}.ts`, '--json'], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let errors = '';
    child.stdout.on('data', (part) => (output += part));
    child.stderr.on('data', (part) => {
      errors += part;
      process.stderr.write(part);
    });
    child.on('close', (code) => {
      const line = output.split('\n').find((each) => each.startsWith('{'));
      if (code === 0 && line !== undefined) resolve(JSON.parse(line) as Report);
      else resolve(`it ended with ${code}: ${errors.trim().split('\n').at(-1)}`);
    });
  });
}

/** Columns that at least one measure of a report has, in the order in which a reader looks for them. */
const columns = [
  'p10',
  'p90',
  'least',
  'most',
  'bare',
  'direct',
  'to the pod itself',
  'reference',
  'ratio',
  'spread',
  'goal',
  'rival',
  'met',
] as const;

function table({ measures }: Report): string {
  const used = columns.filter((column) => measures.some((each) => each[column] !== undefined));
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const cell = (value: number | string | undefined) => (value === undefined ? '' : showNumber(value));
  return [
    row(['measure', 'median', 'unit', ...used]),
    row(['---', '---:', '---', ...used.map((column) => (column === 'met' ? '---' : '---:'))]),
    ...measures.map((each) =>
      row([each.measure, cell(each.median), each.unit, ...used.map((column) => cell(each[column]))]),
    ),
  ].join('\n');
}

/** The verifier's work for each program, as this kernel has counted it. */
async function programTable(): Promise<string> {
  const bed = await createBed({ pods: [] });
  try {
    const programs = bed.nodes[0]!.datapath!.programs();
    return [
      '| program | instructions verified | bytes of machine code |',
      '| --- | ---: | ---: |',
      ...programs.map((each) => `| ${each.name} | ${each.verifiedInstructions} | ${each.jitedBytes} |`),
    ].join('\n');
  } finally {
    bed.close();
  }
}

const file = `${root}/bench/RESULTS.md`;
const wanted = options.only ?? Object.keys(benches);
const commit = (await attempt(['git', '-C', root, 'rev-parse', '--short', 'HEAD'])).stdout.trim();
const programs = await programTable();
const sections = new Map<string, string>();
if (options.only !== undefined)
  for (const part of readFileSync(file, 'utf8').split(/^(?=## )/m)) {
    const name = /^## (\S+)/.exec(part)?.[1];
    if (name !== undefined && name in benches) sections.set(name, part);
  }

/** After each benchmark, so that a run that is ended loses nothing. */
function writeResults(): void {
  const parts = Object.keys(benches).flatMap((name) => sections.get(name) ?? []);
  writeFileSync(
    file,
    `# Results

Made by \`make bench\`; each benchmark is a command of its own that takes \`--json\`, and says when, on which commit and on which
machine it ran. The machine is shared by everything that is measured, and figures of different machines do not compare.

"rival" is Cilium 1.20.2 with its defaults on this kind of machine. "met" says whether the goal was reached in this run;
"too noisy" that the bare control beside it varied too much to say.

${parts.map((part) => part.trimEnd()).join('\n\n')}

## programs

${programs}
`,
  );
}

let missed = 0;
for (const name of wanted) {
  process.stderr.write(`== ${name}\n`);
  const report = await runBench(name);
  const about = benches[name] ?? '';
  const command = `\`node bench/${name}.ts\``;
  if (typeof report === 'string') {
    missed++;
    sections.set(name, `## ${name}\n\n${about}. ${command}\n\n**Not measured**: ${report}\n`);
    process.stderr.write(`not measured: ${report}\n`);
  } else {
    missed += report.measures.filter((each) => each.met === 'no').length;
    const when = `${report.date.slice(0, 16).replace('T', ' ')} UTC, commit ${commit}, on ${report.machine}`;
    sections.set(name, `## ${name}\n\n${about}. ${command}, ${when}\n\n${table(report)}\n`);
  }
  writeResults();
}
process.stdout.write(`bench/RESULTS.md: ${wanted.length} benchmarks, ${missed} goals missed\n`);
process.exit(0);
