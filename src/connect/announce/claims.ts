// Which addresses the nodes have to stand for on the local network, and for which of them this node may: a pure function of
// the node's frontends and of the subnets that its devices are on.
import { type Cidr, cidrContains, formatCidr, parseAddress, parseCidr } from '../../core/ip.ts';
import type { FrontendRow } from '../../core/rows.ts';
import { hash32 } from '../services/maglev.ts';

/** A subnet that a device is on, such as 10.0.0.0/24. */
export interface OnLink {
  readonly ifindex: number;
  readonly cidr: string;
}

/** An address that no interface has and that is to be reached by the local network. */
export interface Claim {
  readonly address: string;
  /** Devices on whose subnet the address is. */
  readonly devices: readonly number[];
  /** Who stands for it is decided by the lease with this name. */
  readonly lease: string;
  /** Other nodes are the better ones: what serves here is about to go, and they have what is ready. */
  readonly yields: boolean;
  /** Services that have it, "namespace/name". */
  readonly services: readonly string[];
}

/**
 * Where any node of a subnet will do, addresses are told apart by so many leases: renewing one for each would be a load on
 * the API server that grows with the services. Addresses of services with the external traffic policy Local have one each,
 * because the nodes that may stand differ.
 */
const sharedLeases = 16;

/** Whether a frontend has an address that is to be announced. External IPs are what whoever may create a Service says they
 * are, the router's address for one: a node that announced them would let that person take it from the whole network. */
export function isAnnounced(row: FrontendRow, externalIps: boolean): boolean {
  return row.scope === 'outside' && (row.kind === 'LoadBalancer' || (externalIps && row.kind === 'ExternalIP'));
}

/** The claims of this node, of frontends that are announced. Left out are addresses of local services without a ready pod here, and those of other subnets:
 * nobody on the link asks for them. */
export function claimsOf(frontends: Iterable<FrontendRow>, links: readonly OnLink[]): Claim[] {
  const byAddress = new Map<string, { services: Set<string>; anyNode: boolean; here: boolean; stays: boolean }>();
  for (const row of frontends) {
    const claim = byAddress.get(row.address) ?? {
      services: new Set<string>(),
      anyNode: false,
      here: false,
      stays: false,
    };
    byAddress.set(row.address, claim);
    claim.services.add(row.service);
    claim.anyNode ||= !row.onlyLocal;
    const serves = row.backends.some((backend) => backend.role.state === 'serving');
    claim.here ||= serves;
    claim.stays ||= serves && row.handsOver !== true;
  }
  const subnets = links.flatMap(({ ifindex, cidr }) => {
    const parsed = parseCidr(cidr);
    return parsed.ok ? [{ ifindex, cidr: parsed.value }] : [];
  });
  return [...byAddress].flatMap(([address, { services, anyNode, here, stays }]) => {
    const parsed = parseAddress(address);
    const on = subnets.filter((subnet) => parsed.ok && cidrContains(subnet.cidr, parsed.value));
    if (on.length === 0 || !(anyNode || here)) return [];
    return {
      address,
      devices: [...new Set(on.map((each) => each.ifindex))].sort((a, b) => a - b),
      lease: anyNode ? sharedLease(address, narrowest(on.map((each) => each.cidr))) : `local-${dnsName(address)}`,
      yields: !anyNode && !stays,
      services: [...services].sort(),
    };
  });
}

function narrowest(cidrs: readonly Cidr[]): Cidr {
  return cidrs.reduce((a, b) => (b.prefixBits > a.prefixBits ? b : a));
}

/** Nodes on one subnet have the same names. */
function sharedLease(address: string, subnet: Cidr): string {
  return `any-${dnsName(formatCidr(subnet))}-${hash32(address, 0) % sharedLeases}`;
}

function dnsName(text: string): string {
  return text.replace(/[:/]/g, '-').replace(/^-/, '0-').replace(/-$/, '-0');
}

/** How many of the nodes come before this one in the wish for a lease: an order of its own for each lease. */
export function rankOf(lease: string, node: string, nodes: Iterable<string>): number {
  const own = hash32(`${lease} ${node}`, 0);
  let before = 0;
  for (const other of nodes) {
    const hash = hash32(`${lease} ${other}`, 0);
    if (other !== node && (hash < own || (hash === own && other < node))) before++;
  }
  return before;
}
