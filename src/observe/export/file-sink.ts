// Lines in a file, which is moved aside by size and age; old ones are compressed, and the oldest removed. A file that
// somebody else moved away is made anew.
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { ConfigOf } from './export-config.ts';
import { allArrived, type Sink } from './sink.ts';

/** Makes a writer of lines. `onError` is told of old files that cannot be compressed or removed. */
export function createFileSink(
  config: Pick<ConfigOf<'file'>, 'path' | 'rotate'>,
  onError: (message: string) => void,
  nowMs: () => number = Date.now,
): Sink {
  const { path, rotate } = config;
  const extension = extname(path);
  const stem = basename(path, extension);
  const folder = dirname(path);
  const oldFile = new RegExp(
    `^${RegExp.escape(stem)}-\\d{8}T\\d{9}Z(-\\d+)?${RegExp.escape(extension)}(\\.gz)?(\\.partial)?$`,
  );
  let file: { readonly handle: FileHandle; readonly ino: number; bytes: number; readonly sinceMs: number } | undefined;
  let reopening = false;
  let tidying: Promise<void> | undefined;

  async function opened(): Promise<NonNullable<typeof file>> {
    if (file !== undefined && (reopening || statSync(path, { throwIfNoEntry: false })?.ino !== file.ino))
      await closeFile();
    reopening = false;
    if (file === undefined) {
      mkdirSync(folder, { recursive: true });
      const handle = await open(path, 'a', 0o640);
      const { ino, size, birthtimeMs } = await handle.stat();
      file = { handle, ino, bytes: size, sinceMs: size === 0 ? nowMs() : birthtimeMs };
      // What a crash cut off must not run into the next line.
      if (size > 0 && !(await endsLine(path, size))) file.bytes += (await handle.write('\n')).bytesWritten;
    }
    return file;
  }

  async function closeFile(): Promise<void> {
    const before = file;
    file = undefined;
    await before?.handle.close();
  }

  async function moveAside(): Promise<void> {
    await closeFile();
    const time = new Date(nowMs()).toISOString().replaceAll(/[-:.]/g, '');
    let name = `${stem}-${time}${extension}`;
    for (let i = 1; existsSync(join(folder, name)) || existsSync(join(folder, `${name}.gz`)); i++)
      name = `${stem}-${time}-${i}${extension}`;
    renameSync(path, join(folder, name));
    tidying ??= tidy()
      .catch((error) => onError((error as Error).message))
      .finally(() => {
        tidying = undefined;
      });
  }

  async function tidy(): Promise<void> {
    let old: string[];
    // More may be moved aside meanwhile.
    do {
      old = readdirSync(folder)
        .filter((name) => oldFile.test(name))
        .sort();
      for (const name of old.filter((each) => each.endsWith('.partial'))) rmSync(join(folder, name));
      old = old.filter((name) => !name.endsWith('.partial'));
      for (const name of old.splice(0, Math.max(0, old.length - rotate.keep))) rmSync(join(folder, name));
      const plain = rotate.gzip ? old.find((name) => !name.endsWith('.gz')) : undefined;
      if (plain === undefined) return;
      const from = join(folder, plain);
      await pipeline(createReadStream(from), createGzip({ level: 6 }), createWriteStream(`${from}.gz.partial`));
      renameSync(`${from}.gz.partial`, `${from}.gz`);
      rmSync(from);
    } while (old.length > 0);
  }

  return {
    async send(batch) {
      const current = await opened();
      const bytes = Buffer.from(`${batch.map((event) => event.body).join('\n')}\n`);
      const tooLarge = current.bytes > 0 && current.bytes + bytes.length > rotate.megabytes * 1024 * 1024;
      const tooOld = rotate.hours !== undefined && nowMs() - current.sinceMs > rotate.hours * 3_600_000;
      if (tooLarge || (tooOld && current.bytes > 0)) await moveAside();
      const target = await opened();
      try {
        for (let at = 0; at < bytes.length; ) at += (await target.handle.write(bytes, at)).bytesWritten;
      } catch (error) {
        // Opened again, the torn line is ended before the batch is written once more.
        await closeFile();
        throw error;
      }
      target.bytes += bytes.length;
      return allArrived;
    },
    reopen() {
      reopening = true;
    },
    async close() {
      await closeFile();
      await tidying;
    },
  };
}

async function endsLine(path: string, size: number): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    return (await handle.read(Buffer.alloc(1), 0, 1, size - 1)).buffer[0] === 0x0a;
  } finally {
    await handle.close();
  }
}
