// Frames that tell the whole local network at which MAC address an IP address is now: ARP announcements (RFC 5227, both as
// request and as reply, because some hosts only learn from one of them) and unsolicited neighbour advertisements (RFC 4861).
import { addressBytes } from '../datapath/address-keys.ts';

const broadcast = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const allNodes = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const allNodesMac = [0x33, 0x33, 0, 0, 0, 1];

/** The frames by which a device with this MAC address takes an address over. */
export function takeoverFrames(address: string, mac: Uint8Array): Uint8Array[] {
  if (address.includes(':')) return [advertisement(addressBytes(address), mac)];
  const ip = addressBytes(address).slice(12);
  return [1, 2].map((operation) =>
    Uint8Array.from([
      ...broadcast,
      ...mac,
      ...[0x08, 0x06],
      ...[0, 1, 0x08, 0, 6, 4, 0, operation],
      ...mac,
      ...ip,
      ...(operation === 1 ? [0, 0, 0, 0, 0, 0] : broadcast),
      ...ip,
    ]),
  );
}

/** The group to which neighbour solicitations for an address are sent. */
export function solicitedNodeGroup(address: string): Uint8Array {
  const bytes = addressBytes(address);
  return Uint8Array.from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...bytes.slice(13)]);
}

function advertisement(ip: Uint8Array, mac: Uint8Array): Uint8Array {
  const override = 0x20;
  const message = [136, 0, 0, 0, override, 0, 0, 0, ...ip, 2, 1, ...mac];
  const checksum = internetChecksum([...ip, ...allNodes, 0, 0, 0, message.length, 0, 0, 0, 58, ...message]);
  message[2] = checksum >> 8;
  message[3] = checksum & 0xff;
  return Uint8Array.from([
    ...allNodesMac,
    ...mac,
    ...[0x86, 0xdd],
    ...[0x60, 0, 0, 0, 0, message.length, 58, 255],
    ...ip,
    ...allNodes,
    ...message,
  ]);
}

/** The ones' complement sum of RFC 1071, over an even number of bytes. */
function internetChecksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}
