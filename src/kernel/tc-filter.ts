// The older way to hook a device: a clsact queueing discipline with a BPF filter in direct-action mode.
import type { Direction } from './bpf-link.ts';
import { isErrno } from './kernel-error.ts';
import {
  attributeText,
  attributeU32,
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  NetlinkPayload,
  parseAttributes,
} from './netlink.ts';

export type TcFilter = { priority: number; handle: number; name: string; programId: number };

const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_NEWTFILTER = 44;
const RTM_DELTFILTER = 45;
const RTM_GETTFILTER = 46;
const TC_H_CLSACT = 0xfffffff1;
const clsactHandle = 0xffff0000;
const filterParent: Record<Direction, number> = { ingress: 0xfffffff2, egress: 0xfffffff3 };
const allProtocolsBigEndian = 0x0300; // htons(ETH_P_ALL)
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const BpfAttribute = { fd: 6, name: 7, flags: 8, id: 11 } as const;
const directAction = 1;
const defaultPriority = 1;
const filterHandle = 1;

/** Where a filter sits: the lower the priority, the earlier it runs. */
export type FilterPlace = { ifindex: number; direction: Direction; priority?: number };

/** Attaches a program, in the place of what is there with the same priority. Makes the clsact qdisc when missing. */
export function attachClsact(netlink: Netlink, place: FilterPlace & { programFd: number; name: string }): void {
  ensureClsact(netlink, place.ifindex);
  const payload = filterPayload(place)
    .text(TCA_KIND, 'bpf')
    .nest(TCA_OPTIONS, (options) => {
      options.u32(BpfAttribute.fd, place.programFd);
      options.text(BpfAttribute.name, place.name);
      options.u32(BpfAttribute.flags, directAction);
    });
  const mode = NetlinkFlag.create | NetlinkFlag.replace;
  netlink.request(RTM_NEWTFILTER, mode, payload.bytes(), `attach ${place.name} to device ${place.ifindex}`);
}

/** Detaches the filter at a place; false when there was none. The qdisc stays. */
export function detachClsact(netlink: Netlink, place: FilterPlace): boolean {
  try {
    const payload = filterPayload(place).text(TCA_KIND, 'bpf').bytes();
    netlink.request(RTM_DELTFILTER, 0, payload, `detach ${place.direction} of device ${place.ifindex}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL', 'ENODEV')) return false;
    throw error;
  }
}

/** The BPF filters of a device in one direction. */
export function listFilters(netlink: Netlink, ifindex: number, direction: Direction): TcFilter[] {
  const header = tcHeader(ifindex, 0, filterParent[direction], 0);
  return netlink.dump(RTM_GETTFILTER, header, `list filters of device ${ifindex}`).flatMap(({ payload }) => {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const attributes = parseAttributes(payload, 20);
    const options = attributes.get(TCA_OPTIONS);
    const kind = attributes.get(TCA_KIND);
    if (!options || !kind || attributeText(kind) !== 'bpf') return [];
    const bpf = parseAttributes(options);
    const name = bpf.get(BpfAttribute.name);
    const handle = view.getUint32(8, true);
    if (handle === 0) return [];
    return [
      {
        priority: view.getUint32(16, true) >>> 16,
        handle,
        name: name ? attributeText(name) : '',
        programId: attributeU32(bpf.get(BpfAttribute.id)) ?? 0,
      },
    ];
  });
}

/** Removes the clsact qdisc of a device, with all its filters. Idempotent; the device may be gone. */
export function removeClsact(netlink: Netlink, ifindex: number): void {
  try {
    const payload = new NetlinkPayload().raw(tcHeader(ifindex, clsactHandle, TC_H_CLSACT, 0)).text(TCA_KIND, 'clsact');
    netlink.request(RTM_DELQDISC, 0, payload.bytes(), `remove clsact of device ${ifindex}`);
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EINVAL', 'ENODEV')) throw error;
  }
}

function ensureClsact(netlink: Netlink, ifindex: number): void {
  try {
    const payload = new NetlinkPayload().raw(tcHeader(ifindex, clsactHandle, TC_H_CLSACT, 0)).text(TCA_KIND, 'clsact');
    const mode = NetlinkFlag.create | NetlinkFlag.excl;
    netlink.request(RTM_NEWQDISC, mode, payload.bytes(), `make clsact of device ${ifindex}`);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
  }
}

function filterPayload(place: FilterPlace): NetlinkPayload {
  const info = (((place.priority ?? defaultPriority) << 16) | allProtocolsBigEndian) >>> 0;
  return new NetlinkPayload().raw(tcHeader(place.ifindex, filterHandle, filterParent[place.direction], info));
}

function tcHeader(ifindex: number, handle: number, parent: number, info: number): Uint8Array {
  return fixedHeader([
    [1, 0],
    [1, 0],
    [2, 0],
    [4, ifindex],
    [4, handle],
    [4, parent],
    [4, info],
  ]);
}
