// The lab's networks: a bridge in the control plane's namespace, and on it each node and `world`. Nothing of it is in
// the machine's own network namespace.
import { existsSync, readdirSync } from 'node:fs';
import {
  families,
  hostAddress,
  hostAddresses,
  hostNumbers,
  type IpFamily,
  withPrefix,
  worldExtraAddresses,
} from './addresses.ts';
import { attempt, run } from './command.ts';
import { netnsFile, netnsName } from './state.ts';

/** Runs `ip` commands, one per line, in a namespace. */
async function ipBatch(namespace: string, lines: readonly string[]): Promise<void> {
  await run(['ip', '-n', namespace, '-batch', '-'], { stdin: `${lines.join('\n')}\n` });
}

/** Writes settings of a network namespace; those that this kernel does not have are left out. */
async function setSysctls(lab: string, host: string, settings: Record<string, string>): Promise<void> {
  const script = 'while [ $# -gt 0 ]; do if [ -e "/proc/sys/$1" ]; then echo "$2" >"/proc/sys/$1"; fi; shift 2; done';
  const args = Object.entries(settings).flat();
  await run(['nsenter', `--net=${netnsFile(lab, host)}`, 'sh', '-c', script, 'sysctl', ...args]);
}

/** What every host of the lab needs to forward packets for others. */
const forwarding = {
  'net/ipv4/ip_forward': '1',
  'net/ipv6/conf/all/forwarding': '1',
  'net/ipv4/conf/all/rp_filter': '0',
  'net/ipv4/conf/default/rp_filter': '0',
};

/** Makes the control plane's namespace with the bridge. */
export async function makeBackbone(lab: string, family: IpFamily): Promise<void> {
  const namespace = netnsName(lab, 'cp');
  await run(['ip', 'netns', 'add', namespace]);
  await setSysctls(lab, 'cp', forwarding);
  await ipBatch(namespace, [
    'link set lo up',
    'link add lan type bridge',
    'link set lan up',
    ...hostAddresses(hostNumbers.controlPlane, family).map((address) => addAddress(address, 'lan')),
  ]);
}

function addAddress(address: string, device: string): string {
  return `address add ${withPrefix(address)} dev ${device}${address.includes(':') ? ' nodad' : ''}`;
}

/** Makes a host's namespace with `eth0` on the bridge; its default route leads to `world`. */
export async function makeHost(lab: string, host: string, hostNumber: number, family: IpFamily): Promise<void> {
  const namespace = netnsName(lab, host);
  const backbone = netnsName(lab, 'cp');
  await run(['ip', 'netns', 'add', namespace]);
  await setSysctls(lab, host, forwarding);
  await ipBatch(backbone, [
    // A host that comes back is the same machine: others still know its address by this MAC.
    `link add ${host} type veth peer name eth0 address ${macOf(hostNumber)} netns ${namespace}`,
    `link set ${host} master lan up`,
  ]);
  await ipBatch(namespace, [
    'link set lo up',
    'link set eth0 up',
    ...hostAddresses(hostNumber, family).map((address) => addAddress(address, 'eth0')),
    ...(hostNumber === hostNumbers.world
      ? worldAddresses(family)
      : families(family).map((each) => `route add default via ${hostAddress(hostNumbers.world, each)}`)),
  ]);
}

/** `world` also answers on addresses that are not of the lab's network, like hosts of the internet. */
function worldAddresses(family: IpFamily): string[] {
  return families(family)
    .flatMap((each) => worldExtraAddresses[each])
    .map((address) => `address add ${address}/${address.includes(':') ? '128 nodad' : 32} dev lo`);
}

/** Sets the routes of `world` and the control plane to the pods: each block of addresses by way of its node. */
export async function setPodRoutes(lab: string, blocks: readonly { cidr: string; via: string }[]): Promise<void> {
  if (blocks.length === 0) return;
  const lines = blocks.map((block) => `route replace ${block.cidr} via ${block.via}`);
  for (const host of ['world', 'cp']) await ipBatch(netnsName(lab, host), lines);
}

/** Removes the namespace of a host, and with it all its devices. */
export async function removeHost(lab: string, host: string): Promise<void> {
  // The kernel takes a namespace apart later, when nobody is in it any more: until then its name on the bridge would be taken.
  await attempt(['ip', '-n', netnsName(lab, 'cp'), 'link', 'delete', host]);
  if (existsSync(netnsFile(lab, host))) await attempt(['ip', 'netns', 'delete', netnsName(lab, host)]);
}

/** The hosts of a lab that have a network namespace. */
export function networkHosts(lab: string): string[] {
  if (!existsSync('/run/netns')) return [];
  const prefix = netnsName(lab, '');
  return readdirSync('/run/netns')
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length))
    .filter((host) => /^(cp|world|node\d+)$/.test(host));
}

/** The MAC of a host's \`eth0\`: locally administered, and the same whenever the host is made. */
function macOf(hostNumber: number): string {
  const [high, low] = [hostNumber >> 8, hostNumber & 255].map((byte) => byte.toString(16).padStart(2, '0'));
  return `02:1a:b0:00:${high}:${low}`;
}
