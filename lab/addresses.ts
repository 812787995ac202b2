// The lab's addressing plan. Every lab uses the same addresses, because all of them live in namespaces of their own.

/** Which IP families a lab's nodes, pods and services have. */
export type IpFamily = 'dual' | 'v4' | 'v6';

/** Host numbers on the lab's network: the last part of an address of either family. */
export const hostNumbers = { controlPlane: 1, world: 2, firstNode: 11 } as const;

/** The most nodes a lab's network has numbers for. */
export const maxNodes = 200;

/** Addresses outside the cluster that `world` answers on beside its own: for rules about blocks of addresses. */
export const worldExtraAddresses = {
  v4: ['198.51.100.1', '198.51.100.2', '203.0.113.1'],
  v6: ['2001:db8:100::1', '2001:db8:100::2', '2001:db8:200::1'],
} as const;

/** Blocks of the lab's network that no host has an address of: for services of type LoadBalancer. */
export const loadBalancerBlocks = { v4: '10.77.0.224/28', v6: 'fd77::1:0:0/112' } as const;

const serviceBlocks = { v4: '10.96.0.0/16', v6: 'fd00:10:96::/112' } as const;

/** The families of a lab, the primary one first. */
export function families(family: IpFamily): ('v4' | 'v6')[] {
  return family === 'dual' ? ['v4', 'v6'] : [family];
}

/** A host's address in one family. The host number's decimal digits appear in both, so that pairs are easy to see. */
export function hostAddress(hostNumber: number, family: 'v4' | 'v6'): string {
  return family === 'v4' ? `10.77.0.${hostNumber}` : `fd77::${hostNumber}`;
}

/** All addresses of a host, in the lab's order of families. */
export function hostAddresses(hostNumber: number, family: IpFamily): string[] {
  return families(family).map((each) => hostAddress(hostNumber, each));
}

/** The address with the length of the nodes' network, as `ip address add` takes it. */
export function withPrefix(address: string): string {
  return address.includes(':') ? `${address}/64` : `${address}/24`;
}

/** The host number of the node with this ordinal, which starts at 1. */
export function nodeHostNumber(ordinal: number): number {
  return hostNumbers.firstNode + ordinal - 1;
}

/** The blocks that services get their addresses from, as the API server takes them. */
export function serviceCidrs(family: IpFamily): string {
  return families(family)
    .map((each) => serviceBlocks[each])
    .join(',');
}

/** The addresses of the `kubernetes` service: the first of each service block. */
export function kubernetesServiceAddresses(family: IpFamily): string[] {
  return families(family).map((each) => (each === 'v4' ? '10.96.0.1' : 'fd00:10:96::1'));
}

/** The addresses of the cluster's name server: the tenth of each service block, as is the custom. */
export function nameServerAddresses(family: IpFamily): string[] {
  return families(family).map((each) => (each === 'v4' ? '10.96.0.10' : 'fd00:10:96::a'));
}

/** `https://HOST:PORT`, with brackets around an IPv6 address. */
export function httpsUrl(address: string, port: number): string {
  return `https://${address.includes(':') ? `[${address}]` : address}:${port}`;
}
