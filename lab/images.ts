// The images that every lab has, made from programs of this machine and Debian packages; none is ever pulled.
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { cacheDir, inputHash, partialName, workFolder } from './cache.ts';
import { run } from './command.ts';
import { buildImageArchive, fullImageName, type ImageConfig } from './image-archive.ts';
import { unpackPackages } from './packages.ts';
import { programFile } from './programs.ts';
import type { Progress } from './progress.ts';
import { repository } from './state.ts';

/** The names of the images that every node gets. */
export const imageNames = {
  pause: 'weir.local/pause:1',
  coredns: 'weir.local/coredns:1.14.3',
  toolbox: 'weir.local/toolbox:dev',
  redis: 'weir.local/redis:dev',
} as const;

/** Raise it when the way an image is made changes. */
const recipe = '4';

const toolboxPackages = [
  'bash',
  'bind9-dnsutils',
  'busybox-static',
  'ca-certificates',
  'coreutils',
  'curl',
  'dash',
  'iperf3',
  'iproute2',
  'iputils-ping',
  'netcat-openbsd',
  'python3-minimal',
  'libpython3-stdlib',
  'socat',
  'wget', // busybox's own cannot look up names with a C library that it was not built with
];

/** How one image is made: `fill` puts the files of its only layer into an empty folder. */
interface ImageRecipe {
  readonly name: string;
  readonly key: () => string;
  readonly fill: (folder: string, progress: Progress) => Promise<void>;
  readonly config: ImageConfig;
}

const recipes: readonly ImageRecipe[] = [
  {
    name: imageNames.pause,
    key: () => inputHash([join(repository, 'lab/images/pause.c')]),
    config: { entrypoint: ['/pause'] },
    async fill(folder) {
      await run(['gcc', '-Os', '-static', '-s', '-o', join(folder, 'pause'), join(repository, 'lab/images/pause.c')]);
    },
  },
  {
    name: imageNames.coredns,
    key: () => basename(join(programFile('coredns'), '..')),
    config: { entrypoint: ['/coredns'] },
    async fill(folder) {
      baseFiles(folder);
      copyFileSync(programFile('coredns'), join(folder, 'coredns'));
    },
  },
  {
    name: imageNames.toolbox,
    key: () => inputHash([], toolboxPackages),
    config: { command: ['sleep', 'infinity'] },
    async fill(folder, progress) {
      const root = await toolboxRoot(progress);
      cpSync(root, folder, { recursive: true, verbatimSymlinks: true });
    },
  },
  {
    name: imageNames.redis,
    key: () => 'redis',
    config: { entrypoint: ['redis-server'], command: ['--protected-mode', 'no', '--bind', '* -::*', '--save', ''] },
    async fill(folder, progress) {
      const root = await unpackPackages(['redis-server', 'redis-tools', 'busybox-static'], progress, { closure: true });
      cpSync(root, folder, { recursive: true, verbatimSymlinks: true });
      baseFiles(folder);
      await fillTools(folder);
    },
  },
];

/** A root directory with all the tools of the toolbox, kept in the cache: for the image, and for hosts without containers. */
export async function toolboxRoot(progress: Progress): Promise<string> {
  const folder = join(cacheDir(), 'roots', `toolbox-${recipe}-${inputHash([], toolboxPackages)}`);
  if (existsSync(folder)) return folder;
  const partial = partialName(folder);
  rmSync(partial, { recursive: true, force: true });
  const packages = await unpackPackages(toolboxPackages, progress, { closure: true });
  cpSync(packages, partial, { recursive: true, verbatimSymlinks: true });
  baseFiles(partial);
  await fillTools(partial);
  renameSync(partial, folder);
  return folder;
}

/** What a program expects to find in any root directory. */
function baseFiles(folder: string): void {
  for (const each of ['dev', 'etc', 'proc', 'root', 'run', 'sys', 'tmp', 'var/tmp']) {
    mkdirSync(join(folder, each), { recursive: true });
  }
  writeFileSync(
    join(folder, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
  );
  writeFileSync(join(folder, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  writeFileSync(join(folder, 'etc/nsswitch.conf'), 'hosts: files dns\n');
}

/** What installing the packages would have done: names for programs, and busybox for all that is not there. */
async function fillTools(folder: string): Promise<void> {
  const bin = join(folder, 'usr/bin');
  const applets = (await run([join(bin, 'busybox'), '--list'])).trim().split('\n');
  const links: [string, string][] = [
    ['sh', 'dash'],
    ['nc', 'nc.openbsd'],
    ['python', 'python3'],
    ['ping6', 'ping'],
    ...applets.map((applet): [string, string] => [applet, 'busybox']),
  ];
  for (const [name, target] of links) {
    const taken = existsSync(join(bin, name)) || existsSync(join(folder, 'usr/sbin', name));
    if (!taken && existsSync(join(bin, target))) symlinkSync(target, join(bin, name));
  }
}

/** The archive of an image that every lab has. */
function archiveOf(image: ImageRecipe): string {
  return join(cacheDir(), 'images', `${image.name.replace(/[^a-z0-9.]+/g, '-')}-${recipe}-${image.key()}.tar`);
}

/** Archives of the user's own images, which every new lab gets as well. */
export function ownImagesDir(): string {
  return join(cacheDir(), 'images', 'own');
}

/** Makes the images that are not in the cache yet. */
export async function buildImages(progress: Progress): Promise<void> {
  for (const image of recipes) {
    const archive = archiveOf(image);
    if (existsSync(archive)) continue;
    await progress.phase(`made image ${image.name}`, async () => {
      const folder = workFolder('image');
      try {
        await image.fill(folder, progress);
        await buildImageArchive(archive, [image.name], [folder], image.config);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
}

/** The archives of the images that every lab has. */
export function standardArchives(): string[] {
  return recipes.map(archiveOf);
}

/** The archives of the user's own images, which a node imports when it starts. */
export function ownArchives(): string[] {
  if (!existsSync(ownImagesDir())) return [];
  const names = readdirSync(ownImagesDir()).filter((name) => name.endsWith('.tar'));
  return names.map((name) => join(ownImagesDir(), name));
}

/** An image in the cache. */
export interface KeptImage {
  readonly name: string;
  readonly archive: string;
  readonly sizeBytes: number;
}

/** The images that a new lab gets. */
export function listImages(): KeptImage[] {
  const known = recipes.map((image) => ({ name: image.name, archive: archiveOf(image) }));
  const own = ownArchives().map((archive) => ({ name: decodeURIComponent(basename(archive, '.tar')), archive }));
  return [...known, ...own]
    .filter((image) => existsSync(image.archive))
    .map((image) => ({ ...image, sizeBytes: statSync(image.archive).size }));
}

/**
 * Makes an image of the user's own from a folder, which is laid over the toolbox, or over nothing.
 * It is kept in the cache, so that every lab started later has it.
 */
export async function buildOwnImage(
  name: string,
  folder: string,
  options: { base: 'toolbox' | 'none'; config: ImageConfig },
  progress: Progress,
): Promise<string> {
  const full = fullImageName(name);
  const archive = join(ownImagesDir(), `${encodeURIComponent(full)}.tar`);
  const layers = [folder];
  const base = workFolder('image');
  try {
    if (options.base === 'toolbox') {
      const toolbox = recipes.find((image) => image.name === imageNames.toolbox);
      await toolbox?.fill(base, progress);
      layers.unshift(base);
    }
    await buildImageArchive(archive, [full], layers, options.config);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
  return archive;
}
