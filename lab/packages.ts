// Debian packages: fetched and unpacked into the cache, so that the machine stays as it is; or, the few that the
// lab itself runs, installed.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { cacheDir, inputHash, partialName } from './cache.ts';
import { attempt, run } from './command.ts';
import type { Progress } from './progress.ts';

/** Programs that must be installed, with the package that has each. */
const prerequisites = [
  { program: 'ip', package: 'iproute2' },
  { program: 'nsenter', package: 'util-linux' },
  { program: 'mount', package: 'mount' },
  { program: 'gcc', package: 'gcc' },
  { program: '/usr/lib/x86_64-linux-gnu/libc.a', package: 'libc6-dev' },
  { program: 'python3', package: 'python3' },
] as const;

async function isPresent(program: string): Promise<boolean> {
  if (program.startsWith('/')) return existsSync(program) || process.arch !== 'x64';
  return (await attempt(['/bin/sh', '-c', `command -v ${program}`])).status === 0;
}

const aptEnv = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };

/** Installs what the lab runs and is not on this machine. Needs root and apt only when something is missing. */
export async function installPrerequisites(progress: Progress): Promise<void> {
  const missing: string[] = [];
  for (const each of prerequisites) {
    if (!(await isPresent(each.program))) missing.push(each.package);
  }
  if (missing.length > 0) await installPackages(missing, progress);
}

/** Installs Debian packages on this machine. */
export async function installPackages(packages: readonly string[], progress: Progress): Promise<void> {
  await progress.phase(`installed ${packages.join(', ')}`, () =>
    apt(['install', '--yes', '--no-install-recommends', ...packages], progress),
  );
}

/** Runs apt-get; when it fails, once more with fresh package lists. */
async function apt(args: readonly string[], progress: Progress): Promise<void> {
  if (!(await isPresent('apt-get'))) {
    throw new WeirError(
      'LAB_PACKAGE_FAILED',
      `apt-get is not here, and the lab needs: ${args.filter((arg) => !arg.startsWith('-')).join(' ')}`,
      'Install these with the package manager of this machine.',
    );
  }
  const options = { env: aptEnv, onStderrLine: (line: string) => progress.tick(`apt: ${line}`) };
  let result = await attempt(['apt-get', '--quiet', ...args], options);
  if (result.status !== 0) {
    await attempt(['apt-get', '--quiet', 'update'], options);
    result = await attempt(['apt-get', '--quiet', ...args], options);
  }
  if (result.status !== 0) {
    throw new WeirError(
      'LAB_PACKAGE_FAILED',
      `apt-get ${args[0]}: ${result.stderr.trim().split('\n').slice(-3).join('; ')}`,
    );
  }
}

// Asked for by packages, but of no use where nothing is installed or configured.
const neverUnpacked =
  /^(adduser|debconf|perl.*|libperl.*|passwd|login|init-system-helpers|lsb-base|sysvinit-utils|dpkg|tar|media-types|mime-support)_/;
const neverKept = [
  ...['bug', 'doc', 'doc-base', 'icons', 'info', 'initramfs-tools', 'lintian', 'locale', 'man', 'menu', 'pixmaps'].map(
    (each) => `share/${each}`,
  ),
  'lib/x86_64-linux-gnu/gconv',
  'lib/x86_64-linux-gnu/perl-base',
  'lib/python3.11/test',
  'lib/python3.11/pydoc_data',
];

/** Packages of older releases have files in /bin and /lib: moved to /usr, where links lead as on a Debian machine. */
async function mergeIntoUsr(root: string): Promise<void> {
  for (const each of ['bin', 'sbin', 'lib', 'lib64']) {
    const above = join(root, each);
    mkdirSync(join(root, 'usr', each), { recursive: true });
    if (existsSync(above)) {
      await run(['cp', '--archive', '--link', '--no-clobber', `${above}/.`, join(root, 'usr', each)]);
      rmSync(above, { recursive: true });
    }
    symlinkSync(`usr/${each}`, above);
  }
}

/**
 * Unpacks packages with everything they depend on into a folder that could be a root directory, and returns it.
 * With `closure` false only the packages themselves are unpacked.
 */
export async function unpackPackages(
  packages: readonly string[],
  progress: Progress,
  options: { closure: boolean },
): Promise<string> {
  const name = `${packages[0]}-${inputHash([], [...packages, String(options.closure), neverUnpacked.source, '3'])}`;
  const folder = join(cacheDir(), 'packages', name);
  if (existsSync(folder)) return folder;
  const partial = partialName(folder);
  const archives = join(partial, 'archives');
  mkdirSync(join(archives, 'partial'), { recursive: true });
  try {
    progress.tick(`fetching ${packages.join(', ')}`);
    // An empty list of installed packages makes apt name all dependencies, also those that are installed here.
    writeFileSync(join(partial, 'status'), '');
    const nothingInstalled = ['-o', `Dir::State::status=${join(partial, 'status')}`];
    await apt(
      [
        'install',
        '--yes',
        '--download-only',
        '--no-install-recommends',
        ...nothingInstalled,
        ...['-o', `Dir::Cache::archives=${archives}`, '-o', 'Debug::NoLocking=1', '-o', 'APT::Sandbox::User=root'],
        ...packages,
      ],
      progress,
    );
    const root = join(partial, 'root');
    mkdirSync(root);
    for (const file of readdirSync(archives).filter((each) => each.endsWith('.deb'))) {
      const wanted = options.closure ? !neverUnpacked.test(file) : packages.some((each) => file.startsWith(`${each}_`));
      if (wanted) await run(['dpkg', '-x', join(archives, file), root]);
    }
    for (const each of neverKept) rmSync(join(root, 'usr', each), { recursive: true, force: true });
    await mergeIntoUsr(root);
    renameSync(root, folder);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}
