// Sends whole Ethernet frames on a device, and makes the device take the frames of IPv6 groups that no address of its own
// asks for.
import { bind, closeFd, send, setSocketOption, socket } from './libc.ts';

const AF_PACKET = 17;
const AF_INET6 = 10;
const SOCK_RAW = 3;
const SOCK_DGRAM = 2;
const IPPROTO_IPV6 = 41;
const IPV6_JOIN_GROUP = 20;
const IPV6_LEAVE_GROUP = 21;

/** A device as a place to send frames. */
export interface PacketSocket {
  /** Sends a frame with its Ethernet header. Throws KernelError, such as when the device is down. */
  send(frame: Uint8Array): void;
  /** Begins or ends to take what is sent to a group of IPv6 (16 bytes). Each may be joined once. */
  joinGroup(group: Uint8Array): void;
  leaveGroup(group: Uint8Array): void;
  close(): void;
}

/** Opens a device of the calling thread's network namespace. Nothing is received. */
export function openPacketSocket(ifindex: number): PacketSocket {
  const fd = socket(AF_PACKET, SOCK_RAW, 0);
  let groupFd: number | undefined;
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setInt32(4, ifindex, true);
  try {
    bind(fd, address);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const membership = (option: number, group: Uint8Array) => {
    groupFd ??= socket(AF_INET6, SOCK_DGRAM, 0);
    const request = new Uint8Array(20);
    request.set(group);
    new DataView(request.buffer).setInt32(16, ifindex, true);
    setSocketOption(groupFd, IPPROTO_IPV6, option, request);
  };
  return {
    send: (frame) => send(fd, frame),
    joinGroup: (group) => membership(IPV6_JOIN_GROUP, group),
    leaveGroup: (group) => membership(IPV6_LEAVE_GROUP, group),
    close() {
      closeFd(fd);
      if (groupFd !== undefined) closeFd(groupFd);
    },
  };
}
