// The veth pair of a pod: made with its far end already in the pod's namespace (moving it there costs 15 ms), the near
// end down until the datapath is attached, so that nothing the pod sends reaches the node's stack unjudged.
import { closeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { addAddress, listAddresses } from '../../kernel/addresses.ts';
import { isErrno } from '../../kernel/kernel-error.ts';
import { createLinkRemover } from '../../kernel/link-remover.ts';
import { createVeth, deleteLink, getLink, listLinks, setLink } from '../../kernel/links.ts';
import { type Netlink, openNetlink } from '../../kernel/netlink.ts';
import { openNetns, withNetns } from '../../kernel/netns.ts';
import { listRoutes, replaceRoute } from '../../kernel/routes.ts';
import { writeSysctl } from '../../kernel/sysctl.ts';
import { CniError, cniCodes } from './cni-protocol.ts';
import { gateways, nodeMac, podMac } from './link-addresses.ts';

/** What a pod's interface is to be. */
export interface PodInterfaceSpec {
  readonly netns: string;
  readonly ifname: string;
  readonly hostName: string;
  readonly mtu: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** Kept with the near end. */
  readonly note?: string;
}

/** What was made. */
export interface PodInterface {
  readonly ifindex: number;
  readonly hostName: string;
  readonly hostMac: string;
  readonly mac: string;
}

/** The near end of a pod's veth pair as it is found. */
export interface PodDevice {
  readonly ifindex: number;
  readonly hostName: string;
  readonly note: string;
}

/** Makes, checks and removes the interfaces of pods. */
export interface PodInterfaces {
  /** `attach` is called with the near end's ifindex while the device is still down. */
  create(spec: PodInterfaceSpec, attach: (ifindex: number) => void): Promise<PodInterface>;
  /** What is wrong with an interface, or undefined. */
  check(spec: Omit<PodInterfaceSpec, 'hostName' | 'note'> & { ifindex: number; mac: string }): string | undefined;
  /** Resolves when the device is gone. */
  remove(ifindex: number): Promise<void>;
  /** Removes devices of pods that nobody knows: left by an agent that died half-way. Answers with their names. */
  prune(known: ReadonlySet<number>, onError: (error: unknown) => void): string[];
  /** The near ends that are there and are what was made: the kernel may have given a number to another device. */
  devices(): PodDevice[];
  /** Changes the note of a near end. */
  setNote(ifindex: number, note: string): void;
  close(): void;
}

/** Above the numbers that the kernel gives out by itself, so that ours are known before the device is made. */
const firstIfindex = 100_000;

const deviceName = /^weir\d+$/;

/** Works in the network namespace of this process. */
export function createPodInterfaces(): PodInterfaces {
  const netlink = openNetlink();
  const remover = createLinkRemover();
  let nextIfindex = listLinks(netlink).reduce((most, link) => Math.max(most, link.ifindex + 1), firstIfindex);

  function createPair(spec: PodInterfaceSpec, netnsFd: number): number {
    for (let tries = 0; ; tries++) {
      const ifindex = nextIfindex++;
      try {
        createVeth(netlink, {
          name: spec.hostName,
          ifindex,
          mac: nodeMac(ifindex),
          mtu: spec.mtu,
          peer: { name: spec.ifname, mac: podMac(ifindex), mtu: spec.mtu, netnsFd, up: true },
        });
        return ifindex;
      } catch (error) {
        if (isErrno(error, 'EBUSY') && tries < 100) continue;
        if (isErrno(error, 'EEXIST')) {
          const stale = getLink(netlink, spec.hostName);
          // Of an earlier try that died half-way; a name of ours belongs to one container only.
          if (stale !== undefined && tries === 0) {
            deleteLink(netlink, stale.ifindex);
            continue;
          }
          throw new CniError(cniCodes.kernel, `interface ${spec.ifname} exists in the pod already`, spec.netns);
        }
        throw error;
      }
    }
  }

  /** The container's last interface may still be on its way out, when it comes again right after it went. */
  async function createWhenFree(spec: PodInterfaceSpec, netnsFd: number): Promise<number> {
    try {
      return createPair(spec, netnsFd);
    } catch (error) {
      if (error instanceof CniError && (await remover.settled())) return createPair(spec, netnsFd);
      throw error;
    }
  }

  return {
    async create(spec, attach) {
      const netnsFd = openPodNetns(spec.netns);
      const inPod = openNetlink({ netnsFd });
      try {
        withNetns(netnsFd, () => allowIpv6(spec));
        const ifindex = await createWhenFree(spec, netnsFd);
        try {
          configurePodSide(inPod, spec);
          attach(ifindex);
          setLink(netlink, ifindex, { up: true, alias: spec.note });
          await untilItSends(inPod, spec.ifname);
        } catch (error) {
          deleteLink(netlink, ifindex);
          throw error;
        }
        return { ifindex, hostName: spec.hostName, hostMac: nodeMac(ifindex), mac: podMac(ifindex) };
      } finally {
        inPod.close();
        closeSync(netnsFd);
      }
    },
    check(spec) {
      const near = getLink(netlink, spec.ifindex);
      if (near === undefined) return 'the host side of the veth is gone';
      if (!near.up) return 'the host side of the veth is down';
      const netnsFd = openPodNetns(spec.netns);
      const inPod = openNetlink({ netnsFd });
      try {
        const link = getLink(inPod, spec.ifname);
        if (link === undefined) return `interface ${spec.ifname} is gone`;
        if (!link.up) return `interface ${spec.ifname} is down`;
        if (link.mac !== spec.mac) return `interface ${spec.ifname} has MAC ${link.mac} instead of ${spec.mac}`;
        const has = new Set(listAddresses(inPod, link.ifindex).map((entry) => entry.address.split('/')[0]));
        for (const address of [spec.ipv4, spec.ipv6]) {
          if (address !== undefined && !has.has(address)) return `address ${address} is gone from ${spec.ifname}`;
        }
        const routes = listRoutes(inPod).filter((route) => route.ifindex === link.ifindex);
        for (const [address, gateway] of [
          [spec.ipv4, gateways.ipv4],
          [spec.ipv6, gateways.ipv6],
        ] as const) {
          if (address !== undefined && !routes.some((route) => route.via === gateway))
            return `the default route via ${gateway} is gone`;
        }
        return undefined;
      } finally {
        inPod.close();
        closeSync(netnsFd);
      }
    },
    remove: (ifindex) => remover.remove(ifindex),
    prune(known, onError) {
      const stray = listLinks(netlink).filter((link) => deviceName.test(link.name) && !known.has(link.ifindex));
      for (const link of stray) remover.remove(link.ifindex).catch(onError);
      return stray.map((link) => link.name);
    },
    devices: () =>
      listLinks(netlink).flatMap(({ ifindex, name, mac, alias }) =>
        deviceName.test(name) && mac === nodeMac(ifindex) ? { ifindex, hostName: name, note: alias } : [],
      ),
    setNote: (ifindex, note) => setLink(netlink, ifindex, { alias: note }),
    close() {
      remover.close();
      netlink.close();
    },
  };
}

function openPodNetns(path: string): number {
  try {
    return openNetns(path);
  } catch (error) {
    throw new CniError(
      cniCodes.unknownContainer,
      'the network namespace of the container is gone',
      `${path}: ${(error as Error).message}`,
    );
  }
}

/** Some runtimes switch IPv6 off in new namespaces; duplicates cannot occur on a link of one. */
function allowIpv6(spec: PodInterfaceSpec): void {
  if (spec.ipv6 === undefined) return;
  for (const [name, value] of [
    ['net.ipv6.conf.default.disable_ipv6', '0'],
    ['net.ipv6.conf.default.accept_dad', '0'],
    ['net.ipv6.conf.default.accept_ra', '0'],
    ['net.ipv6.conf.default.router_solicitations', '0'],
  ] as const) {
    writeSysctl(name, value);
  }
}

function configurePodSide(netlink: Netlink, spec: PodInterfaceSpec): void {
  const lo = getLink(netlink, 'lo');
  if (lo !== undefined && !lo.up) setLink(netlink, lo.ifindex, { up: true });
  const link = getLink(netlink, spec.ifname)!;
  const families = [
    [spec.ipv4, gateways.ipv4, '0.0.0.0/0', '32'],
    [spec.ipv6, gateways.ipv6, '::/0', '128'],
  ] as const;
  for (const [address, gateway, everything, bits] of families) {
    if (address === undefined) continue;
    addAddress(netlink, { ifindex: link.ifindex, address: `${address}/${bits}`, dad: false, replace: true });
    replaceRoute(netlink, { dst: `${gateway}/${bits}`, ifindex: link.ifindex, scope: 'link', src: address });
    replaceRoute(netlink, { dst: everything, via: gateway, ifindex: link.ifindex, src: address });
  }
}

const sendDeadlineMs = 2_000;

/**
 * The near end's coming up gives the pod's end a carrier, on which the kernel acts in the background. What the pod sends
 * before is dropped in silence: its first packet waits for the gateway's MAC, which is asked for again after a second.
 * Kernels since 6.8 catch up when asked for the device.
 */
async function untilItSends(inPod: Netlink, ifname: string): Promise<void> {
  const deadline = performance.now() + sendDeadlineMs;
  while (getLink(inPod, ifname)?.operational !== true) {
    if (performance.now() > deadline)
      throw new CniError(cniCodes.kernel, `interface ${ifname} got no carrier`, `waited ${sendDeadlineMs} ms`);
    await setTimeout(1);
  }
}
