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
  /** The one at an end of an event: 0 the originator's, 1 the responder's. `ifindex` as in FlowEnd. */
  find(view: DataView, offset: number, ifindex: number, side: 0 | 1): FlowSocket | undefined;
}

const TCP = 6;

/** Looks into the map `socket_owners`. */
export function createFlowSockets(map: Pick<BpfMap, 'lookupInto'>): FlowSockets {
  const key = new Uint8Array(SOCKET_KEY_SIZE);
  const keyView = new DataView(key.buffer);
  const value = new Uint8Array(SOCKET_OWNER_SIZE);
  const owner = new DataView(value.buffer);
  const u32 = (at: number) => owner.getUint32(at, true);

  return {
    find(view, offset, ifindex, side) {
      const protocol = view.getUint8(offset + EventOffset.protocol);
      const [local, remote] = side === 0 ? (['sport', 'dport'] as const) : (['dport', 'sport'] as const);
      key.fill(0);
      keyView.setUint32(SocketKeyOffset.ifindex, ifindex, true);
      keyView.setUint16(SocketKeyOffset.localPort, view.getUint16(offset + EventOffset[local]));
      keyView.setUint8(SocketKeyOffset.protocol, protocol);
      if (protocol === TCP) {
        keyView.setUint16(SocketKeyOffset.remotePort, view.getUint16(offset + EventOffset[remote]));
        const at = view.byteOffset + offset + (side === 0 ? EventOffset.dst : EventOffset.src);
        key.set(new Uint8Array(view.buffer, at, 16), SocketKeyOffset.remote);
      }
      if (!map.lookupInto(key, value)) return undefined;
      return {
        startNs: u32(SocketOwnerOffset.who) + u32(SocketOwnerOffset.who + 4) * 2 ** 32,
        pid: u32(SocketOwnerOffset.who + ProcessRefOffset.pid),
        exec: u32(SocketOwnerOffset.who + ProcessRefOffset.exec),
        uid: u32(SocketOwnerOffset.who + ProcessRefOffset.uid),
        measured: (u32(SocketOwnerOffset.flags) & SocketFlags.SOCKET_MEASURED) !== 0,
        tcp: {
          handshakeUs: u32(SocketOwnerOffset.handshakeUs),
          rttUs: u32(SocketOwnerOffset.rttUs),
          minRttUs: u32(SocketOwnerOffset.minRttUs),
          retransmits: u32(SocketOwnerOffset.retransmits),
        },
      };
    },
  };
}
