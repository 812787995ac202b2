// Builds the programs of the lab from their pinned Go modules, once: the result is kept in the user's cache.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { cacheDir, inputHash, partialName } from './cache.ts';
import { attempt, run } from './command.ts';
import { findGo } from './go-toolchain.ts';
import type { Progress } from './progress.ts';
import { repository } from './state.ts';

/** The Kubernetes that the lab runs; lab/kubernetes/go.mod pins the same. */
const kubernetesVersion = '1.34.4';

/** The names by which the one Kubernetes program is called. */
const kubernetesParts = [
  'etcd',
  'forward',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-proxy',
  'kube-scheduler',
  'kubectl',
  'kubelet',
];

/** A program, the module folder under lab/ that pins it, and the package in that module. */
interface GoProgram {
  readonly name: string;
  readonly module: string;
  readonly package: string;
  readonly linkerFlags: string;
  readonly aliases: readonly string[];
  /** True for a package of tests, which is compiled to a program that runs them. */
  readonly tests?: boolean;
}

const versionVariables = [
  `gitVersion=v${kubernetesVersion}`,
  'gitMajor=1',
  `gitMinor=${kubernetesVersion.split('.')[1]}`,
].map((each) => `-X k8s.io/component-base/version.${each}`);

const containerd = 'github.com/containerd/containerd/v2/cmd';
const goPrograms: readonly GoProgram[] = [
  ...['containerd', 'containerd-shim-runc-v2', 'ctr'].map((name) => ({
    name,
    module: 'containerd',
    package: `${containerd}/${name}`,
    linkerFlags: '-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.1',
    aliases: [],
  })),
  { name: 'coredns', module: 'coredns', package: '.', linkerFlags: '-s -w', aliases: [] },
  {
    name: 'kubernetes',
    module: 'kubernetes',
    package: '.',
    linkerFlags: `-s -w ${versionVariables.join(' ')}`,
    aliases: kubernetesParts,
  },
];

/** The stock client of the flows' contract. No lab needs it: a test builds it when it runs. */
const flowClient: GoProgram = {
  name: 'hubble',
  module: 'hubble',
  package: 'github.com/cilium/cilium/hubble',
  linkerFlags: '-s -w',
  aliases: [],
};

/** A collector that exports are tested with. No lab needs it. */
const collector: GoProgram = { name: 'otelcol', module: 'otelcol', package: '.', linkerFlags: '-s -w', aliases: [] };
/** What its module asks for. */
const collectorGoMinor = 26;

/** Kubernetes' own tests, what runs several of them at once, and programs of their pods. No lab needs them either. */
const conformancePrograms: readonly GoProgram[] = [
  {
    name: 'e2e.test',
    module: 'e2e',
    package: 'k8s.io/kubernetes/test/e2e',
    linkerFlags: `-s -w ${versionVariables.join(' ')}`,
    aliases: [],
    tests: true,
  },
  ...[
    ['ginkgo', 'github.com/onsi/ginkgo/v2/ginkgo'],
    ['agnhost', 'k8s.io/kubernetes/test/images/agnhost'],
    ['regression-issue-74839', 'k8s.io/kubernetes/test/images/regression-issue-74839'],
  ].map(([name = '', path = '']) => ({ name, module: 'e2e', package: path, linkerFlags: '-s -w', aliases: [] })),
];

function moduleDir(program: GoProgram): string {
  return join(repository, 'lab', program.module);
}

/** Where a program is kept: the folder's name is a hash of everything that it is built from. */
function programDir(program: GoProgram): string {
  const folder = moduleDir(program);
  const sources = readdirSync(folder).filter((name) => /\.go$|^go\.(mod|sum)$/.test(name));
  const hash = inputHash(
    sources.sort().map((name) => join(folder, name)),
    [program.package, program.linkerFlags, process.arch],
  );
  return join(cacheDir(), 'programs', `${program.name}-${hash}`);
}

/** The folders of all built programs, to be put in front of PATH. */
export function programPath(): string[] {
  return goPrograms.map(programDir);
}

/** The path of a built program or of one of its names. */
export function programFile(name: string): string {
  const program = goPrograms.find((each) => each.name === name || each.aliases.includes(name));
  if (program === undefined) throw new Error(`no program ${name} in the lab`);
  return join(programDir(program), name);
}

function isBuilt(program: GoProgram): boolean {
  const folder = programDir(program);
  return [program.name, ...program.aliases].every((name) => existsSync(join(folder, name)));
}

/** Builds what is not in the cache yet. `force` builds all again. */
export async function buildPrograms(progress: Progress, force = false): Promise<void> {
  const missing = goPrograms.filter((program) => force || !isBuilt(program));
  if (missing.length === 0) return;
  const go = await findGo(progress);
  if (missing.some((program) => program.name === 'kubernetes')) {
    progress.note('building Kubernetes from its Go modules: about 7 minutes on two cores, only this once');
  }
  for (const program of missing) {
    await progress.phase(`built ${program.name}`, () => buildProgram(go, program, progress));
  }
}

/** Builds the stock client of flows unless it is in the cache, about 2 minutes on two cores; its path. */
export async function buildFlowClient(progress: Progress): Promise<string> {
  return buildOne(flowClient, progress);
}

/** Builds the collector of OpenTelemetry unless it is in the cache, about 3 minutes on two cores; its path. */
export async function buildCollector(progress: Progress): Promise<string> {
  return buildOne(collector, progress, collectorGoMinor);
}

async function buildOne(program: GoProgram, progress: Progress, goMinor?: number): Promise<string> {
  if (!isBuilt(program)) {
    const go = await findGo(progress, goMinor);
    await progress.phase(`built ${program.name}`, () => buildProgram(go, program, progress));
  }
  return join(programDir(program), program.name);
}

/** What conformance is tested with: paths of programs, and the sources that their images take files from. */
export interface ConformancePrograms {
  readonly tests: string;
  readonly ginkgo: string;
  readonly agnhost: string;
  readonly invalidPackets: string;
  /** The folder of Kubernetes' sources. */
  readonly sources: string;
}

/** Builds what conformance is tested with unless it is in the cache, about 4 minutes on two cores. */
export async function buildConformancePrograms(progress: Progress): Promise<ConformancePrograms> {
  const go = await findGo(progress);
  for (const program of conformancePrograms.filter((each) => !isBuilt(each)))
    await progress.phase(`built ${program.name}`, () => buildProgram(go, program, progress));
  const [tests = '', ginkgo = '', agnhost = '', invalidPackets = ''] = conformancePrograms.map((each) =>
    join(programDir(each), each.name),
  );
  const sources = await run([go, 'list', '-m', '-f', '{{.Dir}}', 'k8s.io/kubernetes'], {
    cwd: join(repository, 'lab/e2e'),
    env: goEnvironment,
  });
  return { tests, ginkgo, agnhost, invalidPackets, sources: sources.trim() };
}

const goEnvironment = {
  CGO_ENABLED: '0',
  GOTOOLCHAIN: 'local',
  GOFLAGS: '-buildvcs=false -mod=readonly',
  GOWORK: 'off',
};

async function buildProgram(go: string, program: GoProgram, progress: Progress): Promise<void> {
  const folder = programDir(program);
  mkdirSync(folder, { recursive: true });
  // Only a whole program gets its name: an interrupted build leaves a file that nobody runs.
  const partial = partialName(join(folder, program.name));
  const options = { cwd: moduleDir(program), env: goEnvironment };
  const nice = ['nice', '-n', '5', go];
  progress.tick(`${program.name}: fetching its modules`);
  const tests = program.tests ? ['-test'] : [];
  const listed = await attempt([...nice, 'list', '-deps', ...tests, program.package], {
    ...options,
    onStderrLine: (line) => progress.tick(`${program.name}: ${line}`),
  });
  if (listed.status !== 0)
    throw new WeirError(
      'LAB_PACKAGE_FAILED',
      `the modules of ${program.name} cannot be had: ${lastWords(listed.stderr)}`,
    );
  const total = listed.stdout.split('\n').length - 1;
  let compiled = 0;
  const compile = program.tests ? ['test', '-c', '-vet=off'] : ['build'];
  const built = await attempt(
    [...nice, ...compile, '-v', '-trimpath', '-ldflags', program.linkerFlags, '-o', partial, program.package],
    {
      ...options,
      onStderrLine(line) {
        compiled++;
        progress.tick(`${program.name}: compiled ${compiled} of at most ${total} packages (${line})`);
      },
    },
  );
  if (built.status !== 0) {
    rmSync(partial, { force: true });
    throw new WeirError('LAB_BUILD_FAILED', `go could not build ${program.name}: ${lastWords(built.stderr)}`);
  }
  renameSync(partial, join(folder, program.name));
  for (const alias of program.aliases) {
    rmSync(join(folder, alias), { force: true });
    symlinkSync(program.name, join(folder, alias));
  }
}

function lastWords(output: string): string {
  return output.trim().split('\n').slice(-8).join('; ');
}
