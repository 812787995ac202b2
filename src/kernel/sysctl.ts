// Kernel settings under /proc/sys. Those of the network belong to a namespace: the one the file is opened from.
import { readFileSync, writeFileSync } from 'node:fs';
import { withNetns } from './netns.ts';

/**
 * Reads a setting such as `net.ipv4.ip_forward`; write `/` instead of `.` where a device's name has dots. Undefined when
 * the kernel does not know it.
 */
export function readSysctl(name: string, netnsFd?: number): string | undefined {
  const read = (): string | undefined => {
    try {
      return readFileSync(sysctlPath(name), 'utf8').trimEnd();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  };
  return netnsFd === undefined ? read() : withNetns(netnsFd, read);
}

/** Writes a setting; throws the file system's error when it cannot. */
export function writeSysctl(name: string, value: string, netnsFd?: number): void {
  const write = (): void => writeFileSync(sysctlPath(name), value, { flag: 'r+' });
  if (netnsFd === undefined) write();
  else withNetns(netnsFd, write);
}

function sysctlPath(name: string): string {
  const parts = name.includes('/') ? name.split('/') : name.split('.');
  if (parts.some((part) => part === '' || part === '..')) throw new RangeError(`${JSON.stringify(name)} is no setting`);
  return `/proc/sys/${parts.join('/')}`;
}
