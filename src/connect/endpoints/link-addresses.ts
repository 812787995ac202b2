// The addresses on the link between a pod and its node: the gateway's, the same for all pods, and the MACs of both ends.
/** The addresses that pods have as their gateway; the datapath answers for them. */
export const gateways = { ipv4: '169.254.1.1', ipv6: 'fe80::1' } as const;

/** The datapath tells a pod's frames from forged ones by the MAC, which follows from the near end's ifindex. */
export function podMac(ifindex: number): string {
  return macOf(0x0a, ifindex);
}

/** The MAC of the near end, which is the gateway's as the pod sees it. */
export function nodeMac(ifindex: number): string {
  return macOf(0x0e, ifindex);
}

function macOf(first: number, ifindex: number): string {
  const bytes = [first, 0x57, ifindex >>> 24, (ifindex >>> 16) & 255, (ifindex >>> 8) & 255, ifindex & 255];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
