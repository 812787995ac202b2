// An archive that the kernel unpacks as its first file system ("newc" cpio; kernel:
// Documentation/driver-api/early-userspace/buffer-format.rst), made of files of this machine.
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

/** Writes an archive, file by file. */
export interface Initramfs {
  /** A file or folder with all that is in it, but for what `without` names; links keep pointing where they do. */
  add(from: string, to: string, without?: (path: string) => boolean): void;
  /** A file of the system under its own path, and whatever links lead to it. */
  addSystemFile(path: string): void;
  addDevice(path: string, major: number, minor: number): void;
  addFolder(path: string): void;
  close(): void;
}

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** Opens the archive `path` anew. */
export function createInitramfs(path: string): Initramfs {
  const fd = openSync(path, 'w');
  const made = new Set<string>(['/', '.']);
  let inode = 1;

  function entry(name: string, mode: number, data: Uint8Array, device: readonly [number, number] = [0, 0]): void {
    const text = `${name.replace(/^\/+/, '')}\0`;
    // inode, mode, uid, gid, links, mtime, size, device (2), device of a device file (2), length of the name, checksum
    const fields = [inode++, mode, 0, 0, 1, 0, data.length, 0, 0, ...device, Buffer.byteLength(text), 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${text}`;
    writeSync(fd, padded(Buffer.from(header)));
    for (let done = 0; done < data.length; ) done += writeSync(fd, data, done);
    writeSync(fd, new Uint8Array((4 - (data.length % 4)) % 4));
  }

  function addFolder(folder: string): void {
    if (made.has(folder)) return;
    addFolder(dirname(folder));
    made.add(folder);
    entry(folder, S_IFDIR | 0o755, new Uint8Array());
  }

  function add(from: string, to: string, without: (path: string) => boolean = () => false): void {
    if (made.has(to) || without(from)) return;
    const found = lstatSync(from);
    if (found.isDirectory()) {
      addFolder(to);
      for (const name of readdirSync(from).sort()) add(join(from, name), join(to, name), without);
      return;
    }
    addFolder(dirname(to));
    made.add(to);
    if (found.isSymbolicLink()) entry(to, S_IFLNK | 0o777, Buffer.from(readlinkSync(from)));
    else if (found.isFile()) entry(to, S_IFREG | (found.mode & 0o777), readFileSync(from));
  }

  return {
    add,
    addSystemFile: (file) => add(realpathSync(file), file),
    addFolder,
    addDevice(device, major, minor) {
      addFolder(dirname(device));
      entry(device, S_IFCHR | 0o600, new Uint8Array(), [major, minor]);
    },
    close() {
      entry('TRAILER!!!', 0, new Uint8Array());
      closeSync(fd);
    },
  };
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  whole.set(bytes);
  return whole;
}
