// A container runtime's folder with the standard images already unpacked, made once: a new node gets it by links in
// a few milliseconds, where importing the images into each node would take seconds.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cacheDir, inputHash, partialName } from './cache.ts';
import { attempt, run, startDetached } from './command.ts';
import { imageNames, standardArchives } from './images.ts';
import { isAlive, signalProcess } from './process-identity.ts';
import { programFile } from './programs.ts';
import type { Progress } from './progress.ts';
import { waitFor } from './wait.ts';

/** The folder of the prepared store. Its name says what is in it. */
export function imageStore(): string {
  const archives = standardArchives().map((archive) => basename(archive));
  return join(cacheDir(), 'stores', inputHash([], ['1', programFile('containerd'), ...archives]));
}

/** The files of a store that are changed in place, relative to it. */
export function databases(store: string): string[] {
  return readdirSync(store, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.db'));
}

/** Makes the store when it is not in the cache yet, with a runtime that runs only for that. */
export async function buildImageStore(progress: Progress): Promise<void> {
  const store = imageStore();
  if (existsSync(store)) return;
  await progress.phase('unpacked the images for all nodes', async () => {
    const work = partialName(store);
    rmSync(work, { recursive: true, force: true });
    mkdirSync(join(work, 'root'), { recursive: true });
    const socket = join(work, 'containerd.sock');
    writeFileSync(join(work, 'config.toml'), quietConfig(work, socket));
    // Mounts that it needs for unpacking stay in a namespace of its own.
    const argv = ['unshare', '--mount', programFile('containerd'), '--config', join(work, 'config.toml')];
    const runtime = startDetached(argv, { logFile: join(work, 'log') });
    try {
      const ctr = [programFile('ctr'), '--address', socket, '--namespace', 'k8s.io', 'image'];
      await waitFor('the container runtime', async () => (await attempt([...ctr, 'list'])).status === 0, 20_000);
      for (const archive of standardArchives()) {
        progress.tick(`unpacking ${basename(archive)}`);
        await run(['unshare', '--mount', ...ctr, 'import', '--local', archive]);
      }
      await run([...ctr, 'label', imageNames.pause, 'io.cri-containerd.pinned=pinned']);
    } finally {
      signalProcess(runtime, 'SIGTERM');
      await waitFor('the container runtime to end', async () => !isAlive(runtime), 20_000);
    }
    renameSync(join(work, 'root'), store);
    rmSync(work, { recursive: true, force: true });
  });
}

function quietConfig(work: string, socket: string): string {
  return `version = 3
root = "${join(work, 'root')}"
state = "${join(work, 'state')}"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
address = "${socket}"
[ttrpc]
address = "${socket}.ttrpc"
`;
}
