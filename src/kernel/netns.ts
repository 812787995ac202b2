// Network namespaces: entering them for the time of a function, opening, naming and removing them.
import { closeSync, mkdirSync, openSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  CLONE_NEWNET,
  closeFd,
  getSocketOption,
  MNT_DETACH,
  MS_BIND,
  mount,
  setns,
  socket,
  unmount,
  unshare,
} from './libc.ts';

const ownNamespace = '/proc/thread-self/ns/net';

/** Where named namespaces are kept, as `ip netns` keeps them. */
const netnsDirectory = '/run/netns';

/** Opens a namespace by path (`/run/netns/x`, `/proc/PID/ns/net`); the caller closes the descriptor. */
export function openNetns(path: string): number {
  return openSync(path, 'r');
}

/** Opens the calling thread's own network namespace. */
function openOwnNetns(): number {
  return openNetns(ownNamespace);
}

/**
 * Runs `fn` with the calling thread inside a network namespace, and comes back whatever happens. Only synchronous work
 * belongs in `fn`: a promise would go on outside, so returning one is refused. Sockets stay where they were made.
 */
export function withNetns<T>(netns: number | string, fn: () => T): T {
  const fd = typeof netns === 'string' ? openNetns(netns) : netns;
  try {
    return away(() => setns(fd, CLONE_NEWNET), fn);
  } finally {
    if (typeof netns === 'string') closeFd(fd);
  }
}

/** Makes a namespace with a name, kept alive by a bind mount under /run/netns. Returns its path. */
export function createNamedNetns(name: string): string {
  const path = join(netnsDirectory, name);
  mkdirSync(netnsDirectory, { recursive: true });
  writeFileSync(path, '', { flag: 'wx' });
  try {
    away(
      () => unshare(CLONE_NEWNET),
      () => mount(ownNamespace, path, '', MS_BIND),
    );
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
  return path;
}

/** Removes a name. The namespace itself goes when nothing else holds it. */
export function deleteNamedNetns(name: string): void {
  const path = join(netnsDirectory, name);
  unmount(path, MNT_DETACH);
  unlinkSync(path);
}

/** Makes a namespace that only the returned descriptor keeps alive. */
export function createNetns(): number {
  return away(
    () => unshare(CLONE_NEWNET),
    () => openOwnNetns(),
  );
}

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;

/** The number by which programs know the calling thread's network namespace; it is never used twice. */
export function netnsCookie(): bigint {
  const fd = socket(AF_INET, SOCK_DGRAM, 0);
  try {
    const value = new BigUint64Array(1);
    getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, new Uint8Array(value.buffer));
    return value[0]!;
  } finally {
    closeFd(fd);
  }
}

function away<T>(leave: () => void, fn: () => T): T {
  const home = openOwnNetns();
  try {
    leave();
    try {
      const result = fn();
      if (result instanceof Promise) throw new TypeError('withNetns: work in a namespace must be synchronous');
      return result;
    } finally {
      setns(home, CLONE_NEWNET);
    }
  } finally {
    closeSync(home);
  }
}
