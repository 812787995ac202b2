// The user's cache: what is dear to make is kept there under a name that says what it was made from.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { identify } from './process-identity.ts';

/** The folder for everything that can be made again. */
export function cacheDir(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'weir', 'lab');
}

/** A short hash of files and texts: another input, another name. */
export function inputHash(files: readonly string[], texts: readonly string[] = []): string {
  const hash = createHash('sha256');
  for (const file of files) hash.update(readFileSync(file)).update('\0');
  for (const text of texts) hash.update(text).update('\0');
  return hash.digest('hex').slice(0, 12);
}

/** The name under which something is made before it gets its own: never taken for whole. */
export function partialName(file: string): string {
  return `${file}.${process.pid}.partial`;
}

/** The process that was making a partial thing; undefined when the name is not a partial one. */
export function partialOwner(name: string): number | undefined {
  const match = /\.(\d+)\.partial$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Removes what commands have left unfinished that were interrupted. */
export function removeAbandoned(): void {
  for (const folder of ['.', 'images', 'packages', 'roots', 'stores', 'work', ...programFolders()]) {
    const path = join(cacheDir(), folder);
    if (!existsSync(path)) continue;
    for (const name of readdirSync(path)) {
      const owner = partialOwner(name);
      if (owner !== undefined && identify(owner) === undefined)
        rmSync(join(path, name), { recursive: true, force: true });
    }
  }
}

function programFolders(): string[] {
  const programs = join(cacheDir(), 'programs');
  return existsSync(programs) ? readdirSync(programs).map((name) => join('programs', name)) : [];
}

/** An empty folder in the cache that `removeAbandoned` removes if this command does not. */
export function workFolder(purpose: string): string {
  const folder = partialName(join(cacheDir(), 'work', purpose));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}
