// Sockets of a network namespace by what they are connected to, and their end from outside. Kernel: net/ipv4/inet_diag.c,
// include/uapi/linux/inet_diag.h.
import { isErrno } from './kernel-error.ts';
import { openNetlink } from './netlink.ts';

/** A connected socket. */
export interface ConnectedSocket {
  readonly family: 4 | 6;
  /** 6 or 17. */
  readonly protocol: number;
  /** The number by which programs know it. */
  readonly cookie: bigint;
  /** 16 bytes; IPv4 as ::ffff:a.b.c.d. */
  readonly remote: Uint8Array;
  readonly remotePort: number;
  /** As the kernel gave it. */
  readonly id: Uint8Array;
}

/** Sockets of one namespace. */
export interface SocketDiag {
  /** Those connected to this port, TCP (but for those that only wait for time to pass) or UDP. */
  connectedTo(protocol: number, port: number): ConnectedSocket[];
  /** Ends a socket: who uses it gets ECONNABORTED. False when it had gone. */
  destroy(socket: ConnectedSocket): boolean;
  close(): void;
}

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const families = { 4: 2, 6: 10 } as const;
const idBytes = 48;
const at = { dport: 2, dst: 20, cookie: 40 };
/** All but TIME_WAIT (6), LISTEN (10) and NEW_SYN_RECV (12), which nobody holds. */
const states = 0xfff & ~(1 << 6) & ~(1 << 10);

/** Opens the namespace that the calling thread is in, or the one behind `netnsFd`. */
export function openSocketDiag(netnsFd?: number): SocketDiag {
  const netlink = openNetlink({ netnsFd, protocol: NETLINK_SOCK_DIAG });
  const request = (family: 4 | 6, protocol: number, id: Uint8Array): Uint8Array => {
    const bytes = new Uint8Array(8 + idBytes);
    const view = new DataView(bytes.buffer);
    bytes[0] = families[family];
    bytes[1] = protocol;
    view.setUint32(4, states, true);
    bytes.set(id, 8);
    return bytes;
  };
  return {
    connectedTo(protocol, port) {
      const id = new Uint8Array(idBytes);
      new DataView(id.buffer).setUint16(at.dport, port, false);
      return ([4, 6] as const).flatMap((family) =>
        netlink
          .dump(SOCK_DIAG_BY_FAMILY, request(family, protocol, id), 'sockets')
          .map(({ payload }) => readSocket(payload, family, protocol))
          .filter((socket) => socket.remotePort === port),
      );
    },
    destroy(socket) {
      try {
        netlink.request(SOCK_DESTROY, 0, request(socket.family, socket.protocol, socket.id), 'end a socket');
        return true;
      } catch (error) {
        if (isErrno(error, 'ENOENT')) return false;
        throw error;
      }
    },
    close: netlink.close,
  };
}

function readSocket(payload: Uint8Array, family: 4 | 6, protocol: number): ConnectedSocket {
  const id = payload.slice(4, 4 + idBytes);
  const view = new DataView(id.buffer);
  const remote = new Uint8Array(16);
  if (family === 6) remote.set(id.subarray(at.dst, at.dst + 16));
  else {
    remote.set([0xff, 0xff], 10);
    remote.set(id.subarray(at.dst, at.dst + 4), 12);
  }
  return {
    family,
    protocol,
    cookie: view.getBigUint64(at.cookie, true),
    remote,
    remotePort: view.getUint16(at.dport, false),
    id,
  };
}
