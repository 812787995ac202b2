// The C library, bound once. Every function throws KernelError on failure and retries nothing.
// Pointers are numbers (addresses fit 2^53 on the machines Linux runs on) or Uint8Arrays.
import koffi from 'koffi';
import { KernelError } from './kernel-error.ts';

const library = koffi.load('libc.so.6');
const cSyscall = library.func('syscall', 'int64', ['int64', 'int64', 'void *', 'int64', 'int64', 'int64', 'int64']);
const cMmap = library.func('mmap', 'int64', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64']);
const cMunmap = library.func('munmap', 'int', ['uintptr_t', 'size_t']);
const cSetns = library.func('setns', 'int', ['int', 'int']);
const cUnshare = library.func('unshare', 'int', ['int']);
const cMount = library.func('mount', 'int', ['str', 'str', 'str', 'ulong', 'str']);
const cUmount = library.func('umount2', 'int', ['str', 'int']);
const cSocket = library.func('socket', 'int', ['int', 'int', 'int']);
const cBind = library.func('bind', 'int', ['int', 'void *', 'uint']);
const cSend = library.func('send', 'int64', ['int', 'void *', 'size_t', 'int']);
const cRecv = library.func('recv', 'int64', ['int', 'void *', 'size_t', 'int']);
const cSetsockopt = library.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']);
const cGetsockopt = library.func('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']);
const cClose = library.func('close', 'int', ['int']);
const cFlock = library.func('flock', 'int', ['int', 'int']);
const cMallocTrim = library.func('malloc_trim', 'int', ['size_t']);
const cDup = library.func('fcntl', 'int', ['int', 'int', 'int']);

const F_DUPFD_CLOEXEC = 1030;
const LOCK_EX = 2;
const LOCK_NB = 4;
const EAGAIN = 11;

function fail(call: string, detail?: string): never {
  throw new KernelError(call, koffi.errno(), detail);
}

/** syscall(2) with one pointer as second argument, the shape of bpf(2). Returns -errno instead of throwing. */
export function rawSyscall(
  number: number,
  a: number,
  pointer: Uint8Array | null,
  c: number,
  d = 0,
  e = 0,
  f = 0,
): number {
  const result = Number(cSyscall(number, a, pointer, c, d, e, f));
  return result === -1 ? -koffi.errno() : result;
}

/** Buffers that a thread of the pool is using: they must not be collected meanwhile. */
const inUse = new Set<Uint8Array>();

/** The same on a thread of the pool, for calls that take long. Answers -1 on failure: errno belongs to that thread. */
export function rawSyscallAsync(number: number, a: number, pointer: Uint8Array, c: number): Promise<number> {
  inUse.add(pointer);
  return new Promise((resolve, reject) => {
    cSyscall.async(number, a, pointer, c, 0, 0, 0, (error: Error | null, result: number | bigint) => {
      inUse.delete(pointer);
      if (error) reject(error);
      else resolve(Number(result));
    });
  });
}

/** send(2) on a thread of the pool. Answers what was sent, or -1. */
export function sendAsync(fd: number, bytes: Uint8Array): Promise<number> {
  inUse.add(bytes);
  return new Promise((resolve, reject) => {
    cSend.async(fd, bytes, bytes.length, 0, (error: Error | null, result: number | bigint) => {
      inUse.delete(bytes);
      if (error) reject(error);
      else resolve(Number(result));
    });
  });
}

/** Gives what the C library freed back to the kernel: loading programs takes megabytes that are not needed again. */
export function returnFreedMemory(): void {
  cMallocTrim(0);
}

/** The address of a buffer's first byte. The caller keeps the buffer alive for as long as the kernel uses it. */
export function addressOf(buffer: Uint8Array): bigint {
  return koffi.address(buffer);
}

export const PROT_READ = 1;
export const PROT_WRITE = 2;
const MAP_SHARED = 1;

/** Memory shared with the kernel, seen as an ArrayBuffer. */
export type SharedMapping = {
  readonly buffer: ArrayBuffer;
  /** Detaches the ArrayBuffer (views become empty instead of pointing at freed memory), then unmaps. Idempotent. */
  close(): void;
};

/** Maps `lenBytes` of `fd` from `offset`. Writing into a mapping without PROT_WRITE kills the process. */
export function mapShared(fd: number, lenBytes: number, offset: number, protection: number): SharedMapping {
  const address = Number(cMmap(0, lenBytes, protection, MAP_SHARED, fd, offset));
  if (address === -1) fail('mmap', `fd ${fd}, ${lenBytes} bytes at ${offset}`);
  const buffer = koffi.view(BigInt(address), lenBytes);
  return {
    buffer,
    close() {
      if (buffer.detached) return;
      buffer.transfer();
      cMunmap(address, lenBytes);
    },
  };
}

/** Reads `lenBytes` at an address inside memory that a C library owns, as a copy. */
export function copyFromAddress(address: bigint, lenBytes: number): Uint8Array<ArrayBuffer> {
  const view = koffi.view(address, lenBytes);
  const copy = new Uint8Array(view.slice(0));
  view.transfer();
  return copy;
}

/** Writes bytes to an address inside memory that a C library owns. */
export function copyToAddress(address: bigint, bytes: Uint8Array): void {
  const view = koffi.view(address, bytes.length);
  new Uint8Array(view).set(bytes);
  view.transfer();
}

export const CLONE_NEWNET = 0x40000000;

/** Moves the calling thread into a namespace. Use `withNetns`, which comes back. */
export function setns(fd: number, kind: number): void {
  if (cSetns(fd, kind) < 0) fail('setns', `fd ${fd}`);
}

/** Gives the calling thread namespaces of its own. */
export function unshare(flags: number): void {
  if (cUnshare(flags) < 0) fail('unshare');
}

export const MS_BIND = 4096;
export const MNT_DETACH = 2;

export function mount(source: string, target: string, type: string, flags: number, data: string | null = null): void {
  if (cMount(source, target, type, flags, data) < 0) fail('mount', `${source} on ${target} (${type || 'bind'})`);
}

export function unmount(target: string, flags = 0): void {
  if (cUmount(target, flags) < 0) fail('umount2', target);
}

export function socket(family: number, type: number, protocol: number): number {
  const fd = cSocket(family, type, protocol);
  if (fd < 0) fail('socket', `family ${family}, protocol ${protocol}`);
  return fd;
}

export function bind(fd: number, address: Uint8Array): void {
  if (cBind(fd, address, address.length) < 0) fail('bind');
}

export function send(fd: number, bytes: Uint8Array, flags = 0): void {
  if (Number(cSend(fd, bytes, bytes.length, flags)) < 0) fail('send');
}

export const MSG_DONTWAIT = 0x40;

/** Receives into `buffer`; returns the length (with MSG_TRUNC the full length of the message), or -errno. */
export function recv(fd: number, buffer: Uint8Array, flags = 0): number {
  const length = Number(cRecv(fd, buffer, buffer.length, flags));
  return length < 0 ? -koffi.errno() : length;
}

export function setSocketOption(fd: number, level: number, option: number, value: Uint8Array): void {
  if (cSetsockopt(fd, level, option, value, value.length) < 0) fail('setsockopt', `level ${level}, option ${option}`);
}

/** Fills `value` with an option of a fixed size. */
export function getSocketOption(fd: number, level: number, option: number, value: Uint8Array): void {
  const length = new Uint8Array(Uint32Array.of(value.length).buffer);
  if (cGetsockopt(fd, level, option, value, length) < 0) fail('getsockopt', `level ${level}, option ${option}`);
}

/** Locks an open file against others who lock it, without waiting. False when somebody else has the lock. */
export function lockFile(fd: number): boolean {
  if (cFlock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (koffi.errno() === EAGAIN) return false;
  return fail('flock', `fd ${fd}`);
}

/** Closes a file descriptor. A second close of the same number would hit a stranger: owners must close once. */
export function closeFd(fd: number): void {
  if (cClose(fd) < 0) fail('close', `fd ${fd}`);
}

/** A second descriptor for the same open file, closed on exec. */
export function dupFd(fd: number): number {
  const copy = cDup(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) fail('fcntl', `dup of fd ${fd}`);
  return copy;
}

/** Calls back when `fd` has something to read, from Node's event loop. `stop` ends it; the caller closes the fd. */
export function onReadable(fd: number, callback: () => void): { stop(): void; unref(): void } {
  const handle = koffi.node.poll(fd, { readable: true }, callback);
  return { stop: () => handle.close(), unref: () => handle.unref() };
}

let cachedPageSize = 0;

/** Bytes in a page of memory. */
export function pageSize(): number {
  if (!cachedPageSize) cachedPageSize = Number(library.func('sysconf', 'long', ['int'])(30));
  return cachedPageSize;
}
