// What BPF costs on this machine: run counts and times of programs, memory of programs and maps.
import { readFileSync } from 'node:fs';
import { type MapInfo, mapInfo } from './bpf-map.ts';
import { type ProgramInfo, programInfo } from './bpf-program.ts';
import { BpfAttr, BpfCommand, bpf, tryBpf } from './bpf-syscall.ts';
import { isErrno } from './kernel-error.ts';
import { closeFd } from './libc.ts';

const ENOENT = 2;
const mapNextId = 12;

/** Switches run counters on for as long as it is open; they cost each run some 20 ns. */
export function enableRunStats(): { close(): void; [Symbol.dispose](): void } {
  let fd = bpf(BpfCommand.enableStats, new BpfAttr(8), 'ENABLE_STATS');
  const close = (): void => {
    if (fd < 0) return;
    closeFd(fd);
    fd = -1;
  };
  return { close, [Symbol.dispose]: close };
}

/** All loaded programs, with the bytes of kernel memory that each locks. */
export function listPrograms(): (ProgramInfo & { memoryBytes: number })[] {
  return listObjects(BpfCommand.progNextId, BpfCommand.progFdById, (fd) => ({
    ...programInfo(fd),
    memoryBytes: objectMemoryBytes(fd),
  }));
}

/** All maps, with the bytes of kernel memory that each takes by the kernel's own reckoning. */
export function listMaps(): (MapInfo & { memoryBytes: number })[] {
  return listObjects(mapNextId, BpfCommand.mapFdById, (fd) => ({
    ...mapInfo(fd),
    memoryBytes: objectMemoryBytes(fd),
  }));
}

/** Kernel memory of the map or program behind a descriptor. Of maps that grow, what they hold now. */
export function objectMemoryBytes(fd: number): number {
  const line = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').match(/^memlock:\s*(\d+)$/m);
  return Number(line?.[1] ?? 0);
}

function listObjects<T>(nextCommand: number, openCommand: number, read: (fd: number) => T): T[] {
  const found: T[] = [];
  for (let id = 0; ; ) {
    const next = new BpfAttr(12).u32(0, id);
    const result = tryBpf(nextCommand, next);
    if (result === -ENOENT) return found;
    if (result < 0) bpf(nextCommand, next, 'GET_NEXT_ID');
    id = next.readU32(4);
    let fd: number;
    try {
      fd = bpf(openCommand, new BpfAttr(12).u32(0, id), 'GET_FD_BY_ID');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) continue; // gone meanwhile
      throw error;
    }
    try {
      found.push(read(fd));
    } finally {
      closeFd(fd);
    }
  }
}
