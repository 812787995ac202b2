// `make conformance`: Kubernetes' own end-to-end tests against a lab without kube-proxy. They run as a program outside the
// cluster, on the nodes' network. What is run is in selection.ts.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Command, Option } from 'commander';
import { families, loadBalancerBlocks, worldExtraAddresses } from '../../lab/addresses.ts';
import {
  buildConformanceImages,
  buildConformancePrograms,
  credentialFiles,
  downLab,
  importImage,
  kubectl,
  type LabRecord,
  programFile,
  readRecord,
  requireLab,
  run,
  terminalProgress,
  upLab,
  worldCommand,
  worldExec,
} from '../../lab/lab.ts';
import { errorText } from '../../src/core/errors.ts';
import { followOutput, readReport, type TestResult } from './report.ts';
import { type Choice, choose, focusOf, type Group, groups, listedNames } from './selection.ts';

interface Options {
  readonly group?: string[];
  readonly only?: string;
  readonly procs?: number;
  readonly lab?: string;
  readonly keep?: boolean;
  readonly dryRun?: boolean;
  readonly output?: string;
}

const ownLab = 'conformance';
const progress = terminalProgress();
const interrupted = new AbortController();

const options: Options = new Command('make conformance --')
  .description("Runs Kubernetes' own network tests against a lab without kube-proxy.")
  .addOption(new Option('--group <name...>', 'only these groups').choices(groups.map((group) => group.name)))
  .option('--only <pattern>', 'only tests whose name matches this regular expression')
  .option('--procs <n>', 'tests at the same time, in place of what each group says', Number)
  .option('--lab <name>', 'use this lab, which is up, and leave it up')
  .option('--keep', `leave the lab "${ownLab}" up`)
  .option('--dry-run', 'say which tests are run and which are left out, and run none')
  .option('--output <folder>', 'where logs and reports of all groups are kept; otherwise only those of failures are')
  .parse()
  .opts();

process.on('SIGINT', () => interrupted.abort());
process.on('SIGTERM', () => interrupted.abort());
try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  process.stderr.write(`conformance: ${errorText(error)}\n`);
  process.exitCode = 1;
}

async function main(): Promise<boolean> {
  const programs = await buildConformancePrograms(progress);
  const names = listedNames(await run([programs.tests, '--list-tests']));
  const wanted = groups.filter((group) => options.group?.includes(group.name) ?? true);
  const only = new RegExp(options.only ?? '');
  const plan = wanted.map((group) => {
    const { chosen, leftOut } = choose(group, names);
    return { group, choice: { chosen: chosen.filter((name) => only.test(name)), leftOut } };
  });
  if (plan.every(({ choice }) => choice.chosen.length === 0)) throw new Error(`no test matches ${options.only}`);
  if (options.dryRun) {
    for (const { group, choice } of plan) print(group, choice);
    return true;
  }
  const folder = options.output ?? mkdtempSync(join(tmpdir(), 'weir-conformance-'));
  mkdirSync(folder, { recursive: true });
  const images = await buildConformanceImages(programs, progress);
  let record = options.lab === undefined ? undefined : await prepare(requireLab(options.lab), images);
  const summary: { group: Group; results: TestResult[]; leftOut: number; seconds: number }[] = [];
  try {
    for (const { group, choice } of plan) {
      if (choice.chosen.length === 0) continue;
      interrupted.signal.throwIfAborted();
      if (options.lab === undefined && record?.nodes.length !== group.nodes)
        record = await bringUp(group.nodes, images);
      if (group.zones) await makeZones(record!);
      if (group.loadBalancers) await makePool(record!);
      const started = performance.now();
      const results = await runTests(record!, programs, group, choice.chosen, folder);
      const seconds = (performance.now() - started) / 1000;
      summary.push({ group, results, leftOut: choice.leftOut.length, seconds });
    }
  } finally {
    if (options.lab === undefined && !options.keep) await progress.phase('the lab is gone', () => downLab(ownLab));
  }
  const failed = summary.flatMap(({ results }) => results.filter((each) => each.state !== 'passed'));
  process.stdout.write('\n');
  for (const { name, state, message } of failed) process.stdout.write(`${state}: ${name}\n    ${firstLine(message)}\n`);
  for (const { group, results, leftOut, seconds } of summary) {
    const passed = results.filter((each) => each.state === 'passed').length;
    const counts = `${passed} of ${results.length} passed, ${leftOut} left out`;
    process.stdout.write(`${group.name}: ${counts} (${seconds.toFixed(0)} s)\n`);
  }
  if (failed.length > 0) process.stdout.write(`logs and reports: ${folder}\n`);
  else if (options.output === undefined) rmSync(folder, { recursive: true });
  return failed.length === 0;
}

function print(group: Group, { chosen, leftOut }: Choice): void {
  process.stdout.write(`${group.name}: ${group.title}: ${chosen.length} tests on ${group.nodes} nodes\n`);
  for (const name of chosen) process.stdout.write(`  ${name}\n`);
  for (const { name, reason } of leftOut) process.stdout.write(`  LEFT OUT ${name}\n    ${reason}\n`);
}

function firstLine(message = ''): string {
  return message.split('\n').find((line) => line.trim() !== '') ?? 'no reason was given';
}

async function bringUp(nodes: number, images: readonly string[]): Promise<LabRecord> {
  if (readRecord(ownLab) !== undefined) await downLab(ownLab);
  return prepare(await upLab({ name: ownLab, nodes, progress }), images);
}

/** Gives a lab's nodes the tests' images. */
async function prepare(record: LabRecord, images: readonly string[]): Promise<LabRecord> {
  await progress.phase('imported the images of the tests', async () => {
    for (const archive of images) await importImage(record, archive);
  });
  return record;
}

async function makeZones(record: LabRecord): Promise<void> {
  for (const [index, node] of record.nodes.entries()) {
    const zone = `topology.kubernetes.io/zone=zone-${'abc'[index % 3]}`;
    const done = await kubectl(record.name, ['label', '--overwrite', 'node', node.name, zone]);
    if (done.status !== 0) throw new Error(done.stderr.trim());
  }
}

/** Gives the lab addresses for services of type LoadBalancer; the tests ask there as a host of another network. */
async function makePool(record: LabRecord): Promise<void> {
  const ofLab = families(record.ipFamily);
  const pool = {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumLoadBalancerIPPool',
    metadata: { name: 'conformance' },
    spec: { blocks: ofLab.map((family) => ({ cidr: loadBalancerBlocks[family] })) },
  };
  const made = await kubectl(record.name, ['apply', '-f', '-'], JSON.stringify(pool));
  if (made.status !== 0) throw new Error(made.stderr.trim());
  for (const family of ofLab) {
    // A test that wants to see a client's own address takes any of the nodes' network for one of a node.
    const source = worldExtraAddresses[family][0];
    const route = ['route', 'replace', loadBalancerBlocks[family], 'dev', 'eth0', 'src', source];
    const routed = await worldExec(record.name, ['ip', ...route]);
    if (routed.status !== 0) throw new Error(routed.stderr.trim());
  }
}

/** Runs tests to their end, with a line for each that ended. */
async function runTests(
  record: LabRecord,
  programs: { tests: string; ginkgo: string },
  group: Group,
  names: readonly string[],
  folder: string,
): Promise<TestResult[]> {
  process.stdout.write(`\n${group.name}: ${group.title}\n`);
  const report = `${group.name}.json`;
  const log = join(folder, `${group.name}.log`);
  const ginkgo = [
    ...[
      programs.ginkgo,
      `--procs=${Math.min(options.procs ?? group.procs, names.length)}`,
      '-v',
      '--no-color',
      '--silence-skips',
    ],
    ...['--timeout=3h', `--output-dir=${folder}`, `--json-report=${report}`, `--focus=${focusOf(names)}`],
  ];
  const suite = [
    ...[`--kubeconfig=${credentialFiles.kubeconfig(record.name, 'admin')}`, '--provider=skeleton'],
    ...[`--kubectl-path=${programFile('kubectl')}`],
    ...['--dns-domain=cluster.local', '--disable-log-dump'],
    // Some skip themselves unless they are told.
    `--num-nodes=${record.nodes.filter((node) => node.kubelet).length}`,
    // Nodes without kubelet may be there; nothing is scheduled on them.
    '--non-blocking-taints=node-role.kubernetes.io/control-plane,weir.dev/kubeletless',
  ];
  const argv = await worldCommand(record.name, ['nice', '-n', '5', ...ginkgo, programs.tests, '--', ...suite]);
  rmSync(join(folder, report), { force: true });
  const child = spawn(argv[0]!, argv.slice(1), { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const output = createWriteStream(log);
  for (const stream of [child.stdout, child.stderr]) stream.pipe(output, { end: false });
  const stop = () => child.pid !== undefined && process.kill(-child.pid, 'SIGINT');
  interrupted.signal.addEventListener('abort', stop, { once: true });
  const closed = new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
  let count = 0;
  const follow = followOutput(({ name, state, seconds }) => {
    const place = `${++count}/${names.length}`.padStart(8);
    process.stdout.write(
      `${place} ${seconds.toFixed(1).padStart(6)} s  ${state === 'passed' ? 'ok  ' : state}  ${name}\n`,
    );
  });
  for await (const line of createInterface(child.stdout)) follow(line);
  await closed;
  output.end();
  interrupted.signal.removeEventListener('abort', stop);
  try {
    return readReport(readFileSync(join(folder, report), 'utf8'), names);
  } catch (error) {
    throw new Error(`the tests ended without a report: see ${log}`, { cause: error });
  }
}
