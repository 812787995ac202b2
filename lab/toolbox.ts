// Tools for hosts of the lab that are no containers: a program that this machine lacks is run from the toolbox.
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { toolboxRoot } from './images.ts';
import { silentProgress } from './progress.ts';

// The toolbox becomes the root directory in a mount namespace that ends with the program.
const enterToolbox =
  'root=$1; shift; for d in dev proc sys tmp; do mount --rbind "/$d" "$root/$d" || exit; done; exec chroot "$root" "$@"';

/** True when a program is on this machine. */
export function isOnPath(program: string, path: string = process.env.PATH ?? ''): boolean {
  if (program.includes('/')) return existsSync(program);
  return path.split(delimiter).some((folder) => existsSync(join(folder, program)));
}

/** The command itself when this machine has its program; else the same command inside the toolbox, if that has it. */
export async function withTools(argv: readonly string[]): Promise<string[]> {
  const [program = ''] = argv;
  if (isOnPath(program)) return [...argv];
  const root = await toolboxRoot(silentProgress);
  const has = ['usr/bin', 'usr/sbin'].some((folder) => isOnPath(join(root, folder, program)));
  if (!has) return [...argv];
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', enterToolbox, 'toolbox', root, ...argv];
}
