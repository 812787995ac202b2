// IP addresses of devices through netlink.
import { AF_INET, AF_INET6, addressText, familyOf, toPrefixed } from './ip-text.ts';
import { isErrno } from './kernel-error.ts';
import {
  attributeU32,
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  type NetlinkMessage,
  NetlinkPayload,
  parseAttributes,
} from './netlink.ts';

export type DeviceAddress = {
  ifindex: number;
  family: 4 | 6;
  /** Without prefix. */
  address: string;
  prefixBits: number;
  scope: 'global' | 'link' | 'host' | 'other';
  /** Duplicate detection still runs: the address cannot be used yet. */
  tentative: boolean;
  secondary: boolean;
};

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFA_F_SECONDARY = 1;
const IFA_F_NODAD = 2;
const IFA_F_TENTATIVE = 0x40;
const IFA_F_NOPREFIXROUTE = 0x200;
const scopes: Record<number, DeviceAddress['scope']> = { 0: 'global', 253: 'link', 254: 'host' };

/**
 * Gives a device an address such as `10.0.0.1/24`. IPv6 duplicate detection is left out unless `dad` asks for it, so
 * that the address works at once. Replaces an equal one; without `replace` that is EEXIST.
 */
export function addAddress(
  netlink: Netlink,
  spec: { ifindex: number; address: string; dad?: boolean; prefixRoute?: boolean; replace?: boolean },
): void {
  const dadFlag = spec.dad || !spec.address.includes(':') ? 0 : IFA_F_NODAD;
  const flags = dadFlag | (spec.prefixRoute === false ? IFA_F_NOPREFIXROUTE : 0);
  const mode = NetlinkFlag.create | (spec.replace ? NetlinkFlag.replace : NetlinkFlag.excl);
  const payload = addressPayload(spec.ifindex, spec.address).u32(IFA_FLAGS, flags);
  netlink.request(RTM_NEWADDR, mode, payload.bytes(), `add address ${spec.address} to device ${spec.ifindex}`);
}

/** Takes an address from a device; false when it did not have it. */
export function deleteAddress(netlink: Netlink, ifindex: number, address: string): boolean {
  try {
    const payload = addressPayload(ifindex, address);
    netlink.request(RTM_DELADDR, 0, payload.bytes(), `delete address ${address} of device ${ifindex}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'EADDRNOTAVAIL')) return false;
    throw error;
  }
}

/** The addresses of a device, or of all devices. */
export function listAddresses(netlink: Netlink, ifindex?: number): DeviceAddress[] {
  const all = [AF_INET, AF_INET6].flatMap((family) =>
    netlink.dump(RTM_GETADDR, addressHeader(family, 0, 0), 'list addresses').map(parseAddressMessage),
  );
  return ifindex === undefined ? all : all.filter((address) => address.ifindex === ifindex);
}

function addressPayload(ifindex: number, text: string): NetlinkPayload {
  const address = toPrefixed(text);
  return new NetlinkPayload()
    .raw(addressHeader(familyOf(address), address.prefixBits, ifindex))
    .attribute(IFA_LOCAL, address.bytes)
    .attribute(IFA_ADDRESS, address.bytes);
}

function addressHeader(family: number, prefixBits: number, ifindex: number): Uint8Array {
  return fixedHeader([
    [1, family],
    [1, prefixBits],
    [1, 0],
    [1, 0],
    [4, ifindex],
  ]);
}

/** Reads an address out of a netlink message. */
export function parseAddressMessage({ payload }: NetlinkMessage): DeviceAddress {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const attributes = parseAttributes(payload, 8);
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS) ?? new Uint8Array(4);
  const flags = attributeU32(attributes.get(IFA_FLAGS)) ?? payload[2]!;
  return {
    ifindex: view.getUint32(4, true),
    family: payload[0] === AF_INET ? 4 : 6,
    address: addressText(bytes),
    prefixBits: payload[1]!,
    scope: scopes[payload[3]!] ?? 'other',
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    secondary: (flags & IFA_F_SECONDARY) !== 0,
  };
}
