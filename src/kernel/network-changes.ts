// Hears from the kernel when devices, addresses, routes or neighbours change.
import { type DeviceAddress, parseAddressMessage } from './addresses.ts';
import { KernelError } from './kernel-error.ts';
import { closeFd, MSG_DONTWAIT, onReadable, recv, setSocketOption } from './libc.ts';
import { type Link, parseLink } from './links.ts';
import { type Neighbour, parseNeighbour } from './neighbours.ts';
import { type NetlinkMessage, openNetlinkSocket, parseMessages } from './netlink.ts';
import { parseRoute, type Route } from './routes.ts';

export type NetworkChange =
  | { kind: 'link'; deleted: boolean; link: Link }
  | { kind: 'address'; deleted: boolean; address: DeviceAddress }
  | { kind: 'route'; deleted: boolean; route: Route }
  | { kind: 'neighbour'; deleted: boolean; neighbour: Neighbour }
  /** The kernel had more to say than fitted: list everything again. */
  | { kind: 'lost' };

export type NetworkChangeKind = Exclude<NetworkChange['kind'], 'lost'>;

const groupBits: Record<NetworkChangeKind, number> = {
  link: 0x1,
  neighbour: 0x4,
  address: 0x10 | 0x100,
  route: 0x40 | 0x400,
};
const ENOBUFS = 105;
const EAGAIN = 11;
const EINTR = 4;
const SO_RCVBUFFORCE = 33;
const SO_RCVBUF = 8;
const receiveBufferBytes = 4 * 1024 * 1024;

/**
 * Calls `onChanges` with batches of changes, from the event loop, until closed. Subscribes before it returns: list after
 * calling it and nothing is missed.
 */
export function watchNetwork(
  options: { kinds: readonly NetworkChangeKind[]; netnsFd?: number },
  onChanges: (changes: NetworkChange[]) => void,
): { close(): void; [Symbol.dispose](): void } {
  const groups = options.kinds.reduce((bits, kind) => bits | groupBits[kind], 0);
  const fd = openNetlinkSocket(options.netnsFd, groups);
  enlargeBuffer(fd);
  const buffer = new Uint8Array(64 * 1024);
  const poll = onReadable(fd, () => {
    const changes: NetworkChange[] = [];
    for (;;) {
      const length = recv(fd, buffer, MSG_DONTWAIT);
      if (length === -EAGAIN) break;
      if (length === -EINTR) continue;
      if (length === -ENOBUFS) changes.push({ kind: 'lost' });
      else if (length < 0) throw new KernelError('netlink', -length, 'hear of network changes');
      else for (const message of parseMessages(buffer.subarray(0, length))) changes.push(...parseChange(message));
    }
    if (changes.length > 0) onChanges(changes);
  });
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    poll.stop();
    closeFd(fd);
  };
  return { close, [Symbol.dispose]: close };
}

function enlargeBuffer(fd: number): void {
  const size = new Uint8Array(4);
  new DataView(size.buffer).setInt32(0, receiveBufferBytes, true);
  try {
    setSocketOption(fd, 1, SO_RCVBUFFORCE, size);
  } catch {
    setSocketOption(fd, 1, SO_RCVBUF, size);
  }
}

function parseChange(message: NetlinkMessage): NetworkChange[] {
  const deleted = (message.type & 1) === 1; // RTM_NEW* are even, RTM_DEL* odd
  switch (message.type) {
    case 16:
    case 17:
      return [{ kind: 'link', deleted, link: parseLink(message) }];
    case 20:
    case 21:
      return [{ kind: 'address', deleted, address: parseAddressMessage(message) }];
    case 24:
    case 25:
      return [{ kind: 'route', deleted, route: parseRoute(message) }];
    case 28:
    case 29:
      return [{ kind: 'neighbour', deleted, neighbour: parseNeighbour(message) }];
    default:
      return [];
  }
}
