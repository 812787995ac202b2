// What the socket hooks noted about a connection's sockets: whose they are, and what TCP measured.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import {
  EventOffset,
  ProcessRefOffset,
  SOCKET_KEY_SIZE,
  SOCKET_OWNER_SIZE,
  SocketFlags,
  SocketKeyOffset,
  SocketOwnerOffset,
} from '../../kernel/datapath.gen.ts';
import type { FlowTcp } from './flow-row.ts';

/** A socket of this node. */
export interface FlowSocket {
  readonly startNs: number;
  readonly pid: number;
  readonly exec: number;
  readonly uid: number;
  /** It has closed, and what it measured is complete. */
  readonly measured: boolean;
  readonly tcp: FlowTcp;
}

/** Finds sockets. */
export interface FlowSockets {
  /**
   * The one at an end of an event: 0 the originator's, 1 the responder's. `ifindex` as in FlowEnd. What it says is valid until
   * the same side is looked for again.
   */
  find(view: DataView, offset: number, ifindex: number, side: 0 | 1): FlowSocket | undefined;
}

const TCP = 6;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Socket = Mutable<Omit<FlowSocket, 'tcp'>> & { readonly tcp: Mutable<FlowTcp> };

const unknownSocket = (): Socket => ({
  startNs: 0,
  pid: 0,
  exec: 0,
  uid: 0,
  measured: false,
  tcp: { handshakeUs: 0, rttUs: 0, minRttUs: 0, retransmits: 0 },
});

/** Looks into the map `socket_owners`. */
export function createFlowSockets(map: Pick<BpfMap, 'lookupInto'>): FlowSockets {
  const key = new Uint8Array(SOCKET_KEY_SIZE);
  const keyView = new DataView(key.buffer);
  const value = new Uint8Array(SOCKET_OWNER_SIZE);
  const owner = new DataView(value.buffer);
  // One for each side, and none for each event: this is done for every connection that ends.
  const sockets = [unknownSocket(), unknownSocket()] as const;
  const u32 = (at: number) => owner.getUint32(at, true);

  return {
    find(view, offset, ifindex, side) {
      const protocol = view.getUint8(offset + EventOffset.protocol);
      const near = side === 0;
      key.fill(0);
      keyView.setUint32(SocketKeyOffset.ifindex, ifindex, true);
      keyView.setUint16(
        SocketKeyOffset.localPort,
        view.getUint16(offset + (near ? EventOffset.sport : EventOffset.dport)),
      );
      keyView.setUint8(SocketKeyOffset.protocol, protocol);
      if (protocol === TCP) {
        keyView.setUint16(
          SocketKeyOffset.remotePort,
          view.getUint16(offset + (near ? EventOffset.dport : EventOffset.sport)),
        );
        const at = offset + (near ? EventOffset.dst : EventOffset.src);
        for (let i = 0; i < 16; i += 4) keyView.setInt32(SocketKeyOffset.remote + i, view.getInt32(at + i, true), true);
      }
      if (!map.lookupInto(key, value)) return undefined;
      const socket = sockets[side];
      socket.startNs = u32(SocketOwnerOffset.who) + u32(SocketOwnerOffset.who + 4) * 2 ** 32;
      socket.pid = u32(SocketOwnerOffset.who + ProcessRefOffset.pid);
      socket.exec = u32(SocketOwnerOffset.who + ProcessRefOffset.exec);
      socket.uid = u32(SocketOwnerOffset.who + ProcessRefOffset.uid);
      socket.measured = (u32(SocketOwnerOffset.flags) & SocketFlags.SOCKET_MEASURED) !== 0;
      socket.tcp.handshakeUs = u32(SocketOwnerOffset.handshakeUs);
      socket.tcp.rttUs = u32(SocketOwnerOffset.rttUs);
      socket.tcp.minRttUs = u32(SocketOwnerOffset.minRttUs);
      socket.tcp.retransmits = u32(SocketOwnerOffset.retransmits);
      return socket;
    },
  };
}
