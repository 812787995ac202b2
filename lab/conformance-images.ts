// The images that Kubernetes' own tests put into pods, under the names by which the tests ask for them. They are made
// from the tests' own programs and the lab's toolbox.
import { copyFileSync, existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { cacheDir, inputHash, workFolder } from './cache.ts';
import { run } from './command.ts';
import { buildImageArchive, type ImageConfig } from './image-archive.ts';
import { toolboxRoot } from './images.ts';
import { unpackPackages } from './packages.ts';
import { type ConformancePrograms, programFile } from './programs.ts';
import type { Progress } from './progress.ts';
import { repository } from './state.ts';

/** Raise it when the way an image is made changes. */
const recipe = '2';

/** An image, and the names, without registry and tag, that it stands for. */
interface TestImage {
  readonly names: readonly string[];
  readonly config: ImageConfig;
  readonly layers: (folder: string, programs: ConformancePrograms, progress: Progress) => Promise<string[]>;
}

const images: readonly TestImage[] = [
  {
    names: ['agnhost', 'jessie-dnsutils'],
    config: { entrypoint: ['/agnhost'], command: ['pause'] },
    async layers(folder, programs, progress) {
      const libc = await unpackPackages(['libc-bin'], progress, { closure: false });
      mkdirSync(join(folder, 'usr/bin'), { recursive: true });
      mkdirSync(join(folder, 'uploads'));
      copyFileSync(join(libc, 'usr/bin/getent'), join(folder, 'usr/bin/getent'));
      copyFileSync(programFile('coredns'), join(folder, 'coredns')); // some of its pods are name servers
      copyFileSync(programs.agnhost, join(folder, 'agnhost'));
      symlinkSync('agnhost', join(folder, 'agnhost-2'));
      for (const file of ['localhost.crt', 'localhost.key'])
        copyFileSync(join(programs.sources, 'test/images/agnhost/porter', file), join(folder, file));
      return [await toolboxRoot(progress), folder];
    },
  },
  {
    names: ['busybox'],
    config: { command: ['sh'] },
    layers: async (_folder, _programs, progress) => [await toolboxRoot(progress)],
  },
  {
    // The tests want a web server that answers on port 80, not this one in particular.
    names: ['nginx', 'httpd'],
    config: { command: ['busybox', 'httpd', '-f', '-p', '80'] },
    layers: async (_folder, _programs, progress) => [await toolboxRoot(progress)],
  },
  {
    names: ['pause'],
    config: { entrypoint: ['/pause'] },
    async layers(folder) {
      await run(['gcc', '-Os', '-static', '-s', '-o', join(folder, 'pause'), join(repository, 'lab/images/pause.c')]);
      return [folder];
    },
  },
  {
    names: ['regression-issue-74839'],
    config: { entrypoint: ['/regression-issue-74839'] },
    async layers(folder, programs) {
      copyFileSync(programs.invalidPackets, join(folder, 'regression-issue-74839'));
      return [folder];
    },
  },
];

/** The archives of the images for Kubernetes' own tests; those that are not in the cache yet are made. */
export async function buildConformanceImages(programs: ConformancePrograms, progress: Progress): Promise<string[]> {
  const asked = (await run([programs.tests, '--list-images'])).split('\n').filter(Boolean).sort();
  const archives: string[] = [];
  const toolbox = basename(await toolboxRoot(progress));
  for (const image of images) {
    const names = asked.filter((name) => image.names.includes(basename(name).replace(/:.*/, '')));
    if (names.length === 0) throw new Error(`the tests ask for no image ${image.names.join(' or ')}`);
    const made = inputHash([], [recipe, dirname(programs.agnhost), programFile('coredns'), toolbox, ...names]);
    const archive = join(cacheDir(), 'images', `conformance-${image.names[0]}-${made}.tar`);
    archives.push(archive);
    if (existsSync(archive)) continue;
    await progress.phase(`made image ${names.join(', ')}`, async () => {
      const folder = workFolder('image');
      try {
        await buildImageArchive(archive, names, await image.layers(folder, programs, progress), image.config);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
  return archives;
}
