// Network devices through netlink: made, found, changed, moved between namespaces, deleted.
import { isErrno } from './kernel-error.ts';
import {
  attributeText,
  attributeU32,
  encodeMessage,
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  type NetlinkMessage,
  NetlinkPayload,
  openNetlink,
  parseAttributes,
} from './netlink.ts';

export type Link = {
  ifindex: number;
  name: string;
  /** Lower-case hexadecimal with colons; empty for devices without a hardware address. */
  mac: string;
  mtu: number;
  /** Administratively up. */
  up: boolean;
  /** Has a carrier. */
  running: boolean;
  /** Takes packets to send: the kernel acts on a new carrier a moment later, and drops in silence until then. */
  operational: boolean;
  loopback: boolean;
  /** `veth`, `bridge`, `vxlan`, …; empty for physical devices and loopback. */
  kind: string;
  masterIfindex: number;
  /** The other end of a veth pair, in the namespace that peerNetnsId names when it is another. */
  peerIfindex: number;
  peerNetnsId: number | undefined;
  /** A note that lives with the device; empty when there is none. */
  alias: string;
};

/** A note may have so many bytes (kernel: IFALIASZ, with the zero at the end). */
export const longestAliasBytes = 255;

/** Traits of a new device. Left out means the kernel's choice. */
export type LinkSpec = {
  name: string;
  mac?: string;
  mtu?: number;
  up?: boolean;
  ifindex?: number;
  txQueues?: number;
  rxQueues?: number;
  masterIfindex?: number;
  /** Namespace in which the device appears; the socket's own when left out. */
  netnsFd?: number;
};

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const IFF_UP = 1;
const IFF_LOOPBACK = 8;
const IFF_RUNNING = 0x40;
const IFF_LOWER_UP = 0x10000;
const headerBytes = 16;
const Attribute = {
  address: 1,
  name: 3,
  mtu: 4,
  link: 5,
  master: 10,
  linkInfo: 18,
  alias: 20,
  netnsFd: 28,
  extMask: 29,
  txQueues: 31,
  rxQueues: 32,
  linkNetnsId: 37,
} as const;
const skipStatistics = 8; // RTEXT_FILTER_SKIP_STATS

/** Makes a veth pair in one step: both names, addresses and namespaces are right from the beginning. */
export function createVeth(netlink: Netlink, spec: LinkSpec & { peer: LinkSpec }): void {
  create(netlink, spec, 'veth', (data) => {
    data.attribute(1, linkPayload({ ...spec.peer, up: false }).bytes()); // VETH_INFO_PEER
  });
  if (!spec.peer.up) return;
  // The kernel makes the peer before it ties the two together, and refuses to bring up one end alone.
  using there = spec.peer.netnsFd === undefined ? undefined : openNetlink({ netnsFd: spec.peer.netnsFd });
  const payload = new NetlinkPayload().raw(header(0, IFF_UP, IFF_UP)).text(Attribute.name, spec.peer.name);
  (there ?? netlink).request(RTM_NEWLINK, 0, payload.bytes(), `bring up device ${spec.peer.name}`);
}

/** Makes a bridge. */
export function createBridge(netlink: Netlink, spec: LinkSpec): void {
  create(netlink, spec, 'bridge');
}

/** Makes a VXLAN device. With `external`, programs set tunnel id and destination per packet. */
export function createVxlan(
  netlink: Netlink,
  spec: LinkSpec & { port: number; external?: boolean; id?: number; learning?: boolean },
): void {
  create(netlink, spec, 'vxlan', (data) => {
    if (spec.external) data.attribute(25, new Uint8Array([1]));
    else data.u32(1, spec.id ?? 0);
    data.attribute(7, new Uint8Array([spec.learning ? 1 : 0]));
    data.attribute(15, new Uint8Array([spec.port >> 8, spec.port & 255]));
    data.attribute(20, new Uint8Array([1])); // accept IPv6 underlay packets without checksum
  });
}

/** Makes a device of a kind that needs no data of its own, such as `dummy` or `ifb`. */
export function createLink(netlink: Netlink, spec: LinkSpec & { kind: string }): void {
  create(netlink, spec, spec.kind);
}

function create(netlink: Netlink, spec: LinkSpec, kind: string, fillData?: (data: NetlinkPayload) => void): void {
  const payload = linkPayload(spec).nest(Attribute.linkInfo, (info) => {
    info.text(1, kind);
    if (fillData) info.nest(2, fillData);
  });
  netlink.request(
    RTM_NEWLINK,
    NetlinkFlag.create | NetlinkFlag.excl,
    payload.bytes(),
    `create ${kind} device ${spec.name}`,
  );
}

function linkPayload(spec: LinkSpec): NetlinkPayload {
  const flags = spec.up ? IFF_UP : 0;
  const payload = new NetlinkPayload().raw(header(spec.ifindex ?? 0, flags, flags));
  payload.text(Attribute.name, spec.name);
  if (spec.mac !== undefined) payload.attribute(Attribute.address, macBytes(spec.mac));
  if (spec.mtu !== undefined) payload.u32(Attribute.mtu, spec.mtu);
  if (spec.txQueues !== undefined) payload.u32(Attribute.txQueues, spec.txQueues);
  if (spec.rxQueues !== undefined) payload.u32(Attribute.rxQueues, spec.rxQueues);
  if (spec.masterIfindex !== undefined) payload.u32(Attribute.master, spec.masterIfindex);
  if (spec.netnsFd !== undefined) payload.u32(Attribute.netnsFd, spec.netnsFd);
  return payload;
}

function header(ifindex: number, flags = 0, change = 0): Uint8Array {
  return fixedHeader([
    [1, 0],
    [1, 0],
    [2, 0],
    [4, ifindex],
    [4, flags],
    [4, change],
  ]);
}

/** A device by name or ifindex; undefined when there is none. */
export function getLink(netlink: Netlink, which: string | number): Link | undefined {
  const payload = new NetlinkPayload().raw(header(typeof which === 'number' ? which : 0));
  if (typeof which === 'string') payload.text(Attribute.name, which);
  payload.u32(Attribute.extMask, skipStatistics);
  try {
    const [message] = netlink.request(RTM_GETLINK, 0, payload.bytes(), `get device ${which}`);
    return message && parseLink(message);
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return undefined;
    throw error;
  }
}

/** All devices of the namespace. */
export function listLinks(netlink: Netlink): Link[] {
  const payload = new NetlinkPayload().raw(header(0)).u32(Attribute.extMask, skipStatistics);
  return netlink.dump(RTM_GETLINK, payload.bytes(), 'list devices').map(parseLink);
}

/** Changes a device, all at once. `masterIfindex: 0` takes it out of its bridge. Renaming works while it is up, too. */
export function setLink(
  netlink: Netlink,
  ifindex: number,
  change: {
    up?: boolean;
    name?: string;
    alias?: string;
    mac?: string;
    mtu?: number;
    netnsFd?: number;
    masterIfindex?: number;
  },
): void {
  const flags = change.up ? IFF_UP : 0;
  const payload = new NetlinkPayload().raw(header(ifindex, flags, change.up === undefined ? 0 : IFF_UP));
  if (change.name !== undefined) payload.text(Attribute.name, change.name);
  if (change.alias !== undefined) payload.text(Attribute.alias, change.alias);
  if (change.mac !== undefined) payload.attribute(Attribute.address, macBytes(change.mac));
  if (change.mtu !== undefined) payload.u32(Attribute.mtu, change.mtu);
  if (change.masterIfindex !== undefined) payload.u32(Attribute.master, change.masterIfindex);
  if (change.netnsFd !== undefined) payload.u32(Attribute.netnsFd, change.netnsFd);
  netlink.request(RTM_NEWLINK, 0, payload.bytes(), `change device ${ifindex}`);
}

/** Deletes a device (of a veth pair: both ends); false when there was none. */
export function deleteLink(netlink: Netlink, ifindex: number): boolean {
  try {
    netlink.request(RTM_DELLINK, 0, header(ifindex), `delete device ${ifindex}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return false;
    throw error;
  }
}

/** The request to delete a device, for a socket that is used elsewhere. */
export function deleteLinkMessage(ifindex: number, sequence: number): Uint8Array {
  return encodeMessage(RTM_DELLINK, NetlinkFlag.request | NetlinkFlag.ack, sequence, header(ifindex));
}

/** Reads a device out of a netlink message. */
export function parseLink(message: NetlinkMessage): Link {
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const flags = view.getUint32(8, true);
  const attributes = parseAttributes(payload, headerBytes);
  const info = attributes.get(Attribute.linkInfo);
  const kind = info && parseAttributes(info).get(1);
  const name = attributes.get(Attribute.name);
  const mac = attributes.get(Attribute.address);
  const alias = attributes.get(Attribute.alias);
  return {
    ifindex: view.getInt32(4, true),
    name: name ? attributeText(name) : '',
    mac: mac?.length === 6 ? macText(mac) : '',
    mtu: attributeU32(attributes.get(Attribute.mtu)) ?? 0,
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_LOWER_UP) !== 0,
    operational: (flags & IFF_RUNNING) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    kind: kind ? attributeText(kind) : '',
    masterIfindex: attributeU32(attributes.get(Attribute.master)) ?? 0,
    peerIfindex: attributeU32(attributes.get(Attribute.link)) ?? 0,
    peerNetnsId: attributeU32(attributes.get(Attribute.linkNetnsId)),
    alias: alias ? attributeText(alias) : '',
  };
}

/** The bytes of a MAC address such as `0a:57:00:00:00:05`. */
export function macBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) throw new RangeError(`${JSON.stringify(text)} is no MAC address`);
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
}

/** The text of a MAC address. */
export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}
