// Which of the node's devices packets for pods may arrive on, and how large those packets may be.
import { listAddresses } from '../../kernel/addresses.ts';
import { getLink } from '../../kernel/links.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { listRoutes } from '../../kernel/routes.ts';

/** Devices of ours, and those that lead nowhere. */
const notForTraffic = (name: string) => name === 'lo' || name.startsWith('weir');

/** The devices on which packets for pods may arrive: those with an address, or a default route. What came by another way
 * would be judged as the node's own, with whatever source it claims. The programs read Ethernet frames only. */
export function trafficDevices(netlink: Netlink, chosen: readonly string[]): Map<string, number> {
  // One by one: a node has hundreds of devices, nearly all of them pods'.
  const links = [...(chosen.length > 0 ? chosen : deviceIndexes(netlink))].flatMap(
    (each) => getLink(netlink, each) ?? [],
  );
  const found = links
    .filter((link) => !notForTraffic(link.name) && link.mac !== '')
    .sort((a, b) => a.ifindex - b.ifindex);
  return new Map(found.map((link) => [link.name, link.ifindex]));
}

function deviceIndexes(netlink: Netlink): Set<number> {
  const found = new Set(defaultRouteDevices(netlink));
  for (const entry of listAddresses(netlink)) if (!entry.address.startsWith('fe80:')) found.add(entry.ifindex);
  return found;
}

function defaultRouteDevices(netlink: Netlink): number[] {
  return listRoutes(netlink, { table: 254 }).flatMap((route) =>
    route.dst === '0.0.0.0/0' || route.dst === '::/0' ? route.ifindex : [],
  );
}

/** The smallest of the devices' limits, which is the pods'. */
export function deviceMtu(netlink: Netlink, chosen: readonly string[]): number {
  const indexes = chosen.length > 0 ? trafficDevices(netlink, chosen).values() : defaultRouteDevices(netlink);
  const mtus = [...indexes].flatMap((ifindex) => getLink(netlink, ifindex)?.mtu ?? []);
  return mtus.length === 0 ? 1500 : Math.min(...mtus);
}
