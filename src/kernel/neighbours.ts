// Neighbour entries (ARP and NDP) through netlink.
import { AF_INET, addressText, familyOf, toAddress } from './ip-text.ts';
import { isErrno } from './kernel-error.ts';
import { macBytes, macText } from './links.ts';
import {
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  type NetlinkMessage,
  NetlinkPayload,
  parseAttributes,
} from './netlink.ts';

export type Neighbour = {
  ifindex: number;
  family: 4 | 6;
  address: string;
  /** Undefined while it is not resolved. */
  mac: string | undefined;
  permanent: boolean;
};

const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_GETNEIGH = 30;
const NUD_PERMANENT = 0x80;
const NDA_DST = 1;
const NDA_LLADDR = 2;

/** Writes an entry that never ages, in place of any there is. */
export function setNeighbour(netlink: Netlink, entry: { ifindex: number; address: string; mac: string }): void {
  const payload = neighbourPayload(entry.ifindex, entry.address, NUD_PERMANENT).attribute(
    NDA_LLADDR,
    macBytes(entry.mac),
  );
  const mode = NetlinkFlag.create | NetlinkFlag.replace;
  netlink.request(RTM_NEWNEIGH, mode, payload.bytes(), `set neighbour ${entry.address} dev ${entry.ifindex}`);
}

/** Deletes an entry; false when there was none. */
export function deleteNeighbour(netlink: Netlink, ifindex: number, address: string): boolean {
  try {
    const payload = neighbourPayload(ifindex, address, 0);
    netlink.request(RTM_DELNEIGH, 0, payload.bytes(), `delete neighbour ${address} dev ${ifindex}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** The entries of a device, or of all devices. */
export function listNeighbours(netlink: Netlink, ifindex?: number): Neighbour[] {
  const all = netlink.dump(RTM_GETNEIGH, neighbourHeader(0, 0, 0), 'list neighbours').map(parseNeighbour);
  return ifindex === undefined ? all : all.filter((entry) => entry.ifindex === ifindex);
}

function neighbourPayload(ifindex: number, text: string, state: number): NetlinkPayload {
  const address = toAddress(text);
  return new NetlinkPayload().raw(neighbourHeader(familyOf(address), ifindex, state)).attribute(NDA_DST, address.bytes);
}

function neighbourHeader(family: number, ifindex: number, state: number): Uint8Array {
  return fixedHeader([
    [1, family],
    [1, 0],
    [2, 0],
    [4, ifindex],
    [2, state],
    [1, 0],
    [1, 0],
  ]);
}

/** Reads an entry out of a netlink message. */
export function parseNeighbour({ payload }: NetlinkMessage): Neighbour {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const attributes = parseAttributes(payload, 12);
  const address = attributes.get(NDA_DST);
  const mac = attributes.get(NDA_LLADDR);
  return {
    ifindex: view.getInt32(4, true),
    family: payload[0] === AF_INET ? 4 : 6,
    address: address ? addressText(address) : '',
    mac: mac?.length === 6 ? macText(mac) : undefined,
    permanent: (view.getUint16(8, true) & NUD_PERMANENT) !== 0,
  };
}
