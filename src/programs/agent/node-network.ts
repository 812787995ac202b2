// The node's own devices, addresses and routes: hooks the devices that traffic arrives on, keeps the table of the host's
// addresses, and says when routes have to be written or looked up again.
import type { Datapath } from '../../connect/datapath/load-datapath.ts';
import type { XdpBalancer } from '../../connect/services/xdp-balancer.ts';
import { errorText } from '../../core/errors.ts';
import type { Table } from '../../core/table.ts';
import { listAddresses } from '../../kernel/addresses.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import { type NetworkChange, watchNetwork } from '../../kernel/network-changes.ts';
import { RouteProtocol } from '../../kernel/routes.ts';
import type { Log } from '../log.ts';
import { guardedBy } from './guarded.ts';
import { trafficDevices } from './traffic-devices.ts';

/** Follows the node's network, and does what follows from it at once when told to. */
export interface NodeNetwork {
  updateDevices(): void;
  updateHostAddresses(): void;
  close(): void;
}

const ofTheNode = (change: NetworkChange) => change.kind === 'link' && !change.link.name.startsWith('weir');

/** Listens from here on; what is there already is for the caller to take in. */
export function createNodeNetwork(options: {
  readonly netlink: Netlink;
  readonly datapath: Datapath;
  readonly xdp: XdpBalancer;
  /** The devices that the operator chose; all that traffic arrives on when empty. */
  readonly devices: readonly string[];
  readonly hostAddresses: Table<{ address: string }>;
  /** Those, and while the host firewall is on the ones that are good on one network only. */
  readonly ownAddresses: Table<{ address: string }>;
  readonly hostFirewall: boolean;
  /** Whether the firewall has anything to look at now; asked whenever devices are updated. */
  readonly guards: () => boolean;
  readonly writeRoutesAgain: () => void;
  /** Next hops that are remembered with connections have to be looked up again. */
  readonly onRoutesMoved: () => void;
  readonly log: Log;
}): NodeNetwork {
  const { netlink, datapath, xdp, hostAddresses, ownAddresses, hostFirewall, log } = options;

  function updateDevices(): void {
    const devices = trafficDevices(netlink, options.devices);
    const guards = options.guards();
    datapath.guardArrivals(guards);
    for (const [name, ifindex] of devices) {
      try {
        datapath.attachDevice(name, ifindex);
        if (guards) datapath.attachGuard(name, ifindex);
        else datapath.detachGuard(name, ifindex);
      } catch (error) {
        log.error('could not attach to a device', { device: name, error: errorText(error) });
      }
    }
    // Also of devices that traffic no longer leaves by: what hangs there would go on as it was.
    if (!guards)
      for (const { name, ifindex } of datapath.attachments.list())
        if (name.startsWith('guard-')) datapath.detachGuard(name.slice('guard-'.length), ifindex);
    for (const { device, error } of xdp.follow(devices))
      log.warn('a device has no XDP: services are balanced in tc there', { device, error: errorText(error) });
  }

  function updateHostAddresses(): void {
    const entries = listAddresses(netlink).map(({ ifindex, address }) => ({
      ifindex,
      address: address.split('/')[0]!,
    }));
    const rows = (addresses: readonly string[]) => [...new Set(addresses)].map((address) => ({ address }));
    const own = entries
      .map((entry) => entry.address)
      .filter((address) => !address.startsWith('fe80:') && !address.startsWith('127.') && address !== '::1');
    hostAddresses.replaceAll(rows(own));
    hostAddresses.markInitialized();
    const judged = new Set(hostFirewall ? trafficDevices(netlink, options.devices).values() : []);
    const local = entries.filter(({ ifindex, address }) => judged.has(ifindex) && address.startsWith('fe80:'));
    ownAddresses.replaceAll(rows([...own, ...local.map((entry) => entry.address)]));
    ownAddresses.markInitialized();
  }

  function follow(changes: readonly NetworkChange[]): void {
    const any = (test: (change: NetworkChange) => boolean) =>
      changes.some((change) => change.kind === 'lost' || test(change));
    const address = any((change) => change.kind === 'address');
    if (address) updateHostAddresses();
    if (address || any(ofTheNode)) updateDevices();
    // A device that goes down takes its routes with it, and the kernel does not always say so.
    const routeGone = (change: NetworkChange) =>
      change.kind === 'route' && change.deleted && change.route.protocol === RouteProtocol.weir;
    if (any((change) => ofTheNode(change) || routeGone(change))) options.writeRoutesAgain();
    if (any((change) => change.kind === 'route' && change.route.protocol !== RouteProtocol.weir))
      options.onRoutesMoved();
  }

  const guarded = guardedBy(log);
  const watch = watchNetwork({ kinds: ['address', 'route', 'link'] }, (changes) =>
    guarded('follow the network', () => follow(changes))(),
  );
  return { updateDevices, updateHostAddresses, close: () => watch.close() };
}
