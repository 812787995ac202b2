// The kernel's side of announcements: the map of addresses that the device program answers for, and packet sockets by which
// the network is told.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { macBytes } from '../../kernel/links.ts';
import { openPacketSocket, type PacketSocket } from '../../kernel/packet-socket.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { addressBytes, addressText } from '../datapath/address-keys.ts';
import type { AnnouncementPort } from './announcer.ts';
import { solicitedNodeGroup, takeoverFrames } from './neighbour-frames.ts';

interface OpenDevice {
  readonly socket: PacketSocket;
  /** Addresses by the group that is joined for them. */
  readonly groups: Map<string, Set<string>>;
}

/** Opens devices as they are needed. The calling thread is in the node's network namespace. */
export function createAnnouncementPort(map: BpfMap): AnnouncementPort & { close(): void } {
  const rows = typedMap(map, datapathMaps.announced);
  const devices = new Map<number, OpenDevice>();
  const keyOf = (address: string, ifindex: number) => ({ addr: addressBytes(address), ifindex });

  function deviceOf(ifindex: number): OpenDevice {
    const known = devices.get(ifindex);
    if (known !== undefined) return known;
    const device = { socket: openPacketSocket(ifindex), groups: new Map<string, Set<string>>() };
    devices.set(ifindex, device);
    return device;
  }

  function join(address: string, ifindex: number): void {
    if (!address.includes(':')) return;
    const { socket, groups } = deviceOf(ifindex);
    const group = solicitedNodeGroup(address);
    const key = addressText(group);
    const users = groups.get(key);
    if (users === undefined) socket.joinGroup(group);
    groups.set(key, (users ?? new Set()).add(address));
  }

  function leave(address: string, ifindex: number): void {
    const device = devices.get(ifindex);
    if (!address.includes(':') || device === undefined) return;
    const group = solicitedNodeGroup(address);
    const key = addressText(group);
    const users = device.groups.get(key);
    if (users?.delete(address) !== true || users.size > 0) return;
    device.groups.delete(key);
    device.socket.leaveGroup(group);
  }

  return {
    list: () => rows.entries().map(({ key }) => ({ address: addressText(key.addr), ifindex: key.ifindex })),
    put(address, { ifindex, mac }, lastsMs) {
      const untilNs = process.hrtime.bigint() + BigInt(lastsMs) * 1_000_000n;
      rows.update(keyOf(address, ifindex), { untilNs, mac: macBytes(mac) });
      join(address, ifindex);
    },
    remove(address, ifindex) {
      rows.delete(keyOf(address, ifindex));
      leave(address, ifindex);
    },
    tell(address, { ifindex, mac }) {
      for (const frame of takeoverFrames(address, macBytes(mac))) deviceOf(ifindex).socket.send(frame);
    },
    close() {
      for (const { socket } of devices.values()) socket.close();
      devices.clear();
    },
  };
}
