// The pair of devices between the node's stack and its pods: weir_host is in the stack, weir_net carries the datapath.
// Both ends know each other's MAC for good, so nothing asks on that link.
import { createVeth, getLink, listLinks, setLink } from '../../kernel/links.ts';
import { setNeighbour } from '../../kernel/neighbours.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { readSysctl, writeSysctl } from '../../kernel/sysctl.ts';
import { gateways, nodeMac, podMac } from '../endpoints/link-addresses.ts';

const nodeDeviceNames = { host: 'weir_host', net: 'weir_net' } as const;

/** The ifindexes of the pair. */
export interface NodeDevices {
  readonly hostIfindex: number;
  readonly netIfindex: number;
}

/** Makes the pair where it is missing and sets what forwarding needs. */
export function ensureNodeDevices(netlink: Netlink, mtu: number): NodeDevices {
  if (getLink(netlink, nodeDeviceNames.host) === undefined) {
    createVeth(netlink, { name: nodeDeviceNames.host, mtu, peer: { name: nodeDeviceNames.net, mtu } });
  }
  const host = getLink(netlink, nodeDeviceNames.host)!;
  const net = getLink(netlink, nodeDeviceNames.net)!;
  if (host.mac !== podMac(net.ifindex)) setLink(netlink, host.ifindex, { mac: podMac(net.ifindex) });
  if (net.mac !== nodeMac(net.ifindex)) setLink(netlink, net.ifindex, { mac: nodeMac(net.ifindex) });
  for (const link of [host, net]) {
    // The node's routes decide, not the device a packet came by: answers of pods come in over weir_host.
    writeSysctl(`net.ipv4.conf.${link.name}.rp_filter`, '0');
    if (hasIpv6(link.name)) {
      writeSysctl(`net.ipv6.conf.${link.name}.accept_ra`, '0');
      writeSysctl(`net.ipv6.conf.${link.name}.accept_dad`, '0');
    }
    if (!link.up) setLink(netlink, link.ifindex, { up: true });
    if (link.mtu !== mtu) setLink(netlink, link.ifindex, { mtu });
  }
  setNeighbour(netlink, { ifindex: host.ifindex, address: gateways.ipv4, mac: nodeMac(net.ifindex) });
  if (hasIpv6(host.name))
    setNeighbour(netlink, { ifindex: host.ifindex, address: gateways.ipv6, mac: nodeMac(net.ifindex) });
  enableForwarding(netlink);
  return { hostIfindex: host.ifindex, netIfindex: net.ifindex };
}

/** A kernel may be without IPv6, or have it switched off. */
function hasIpv6(device: string): boolean {
  return readSysctl(`net.ipv6.conf.${device}.disable_ipv6`) === '0';
}

/** Forwarding of both families. It makes Linux ignore router advertisements, which a node may live by: those stay on. */
function enableForwarding(netlink: Netlink): void {
  if (readSysctl('net.ipv4.ip_forward') !== '1') writeSysctl('net.ipv4.ip_forward', '1');
  if (!hasIpv6('all') || readSysctl('net.ipv6.conf.all.forwarding') === '1') return;
  for (const link of listLinks(netlink)) {
    const name = `net.ipv6.conf.${link.name}.accept_ra`;
    if (readSysctl(name) === '1') writeSysctl(name, '2');
  }
  writeSysctl('net.ipv6.conf.all.forwarding', '1');
}
