// A small network in namespaces: nodes with the real datapath, pods on them, no Kubernetes. For tests of packets and for
// benchmarks; the same with nothing attached ("bare") is the control that benchmarks compare with.
import { closeSync, mkdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createDatapathWriter, type DatapathWriter } from '../../src/connect/datapath/datapath-writer.ts';
import { type Datapath, loadDatapath } from '../../src/connect/datapath/load-datapath.ts';
import { gateways } from '../../src/connect/endpoints/link-addresses.ts';
import { createPodInterfaces } from '../../src/connect/endpoints/pod-interface.ts';
import { ensureNodeDevices, type NodeDevices } from '../../src/connect/routing/node-devices.ts';
import { identityLabels, reservedIdentities } from '../../src/core/identity.ts';
import type { AddressRow, EndpointRow, PolicyRow } from '../../src/core/rows.ts';
import { addAddress } from '../../src/kernel/addresses.ts';
import type { DatapathConstants } from '../../src/kernel/datapath.gen.ts';
import { createVeth, getLink, setLink } from '../../src/kernel/links.ts';
import { type Netlink, openNetlink } from '../../src/kernel/netlink.ts';
import { createNamedNetns, deleteNamedNetns, openNetns, withNetns } from '../../src/kernel/netns.ts';
import { replaceRoute } from '../../src/kernel/routes.ts';
import { writeSysctl } from '../../src/kernel/sysctl.ts';
import { createPolicyCompiler, type PolicyCompiler } from '../../src/secure/policy/compile.ts';

/** A pod of the bed: a network namespace with both families. */
export interface BedPod {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly node: number;
  /** Name under /run/netns. */
  readonly netns: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly identity: number;
  readonly ifindex: number;
}

/** A node of the bed. */
export interface BedNode {
  readonly name: string;
  readonly netns: string;
  readonly netnsFd: number;
  readonly netlink: Netlink;
  readonly ipv4: string;
  readonly ipv6: string;
  /** Of `eth0`, the wire to the other node. */
  readonly deviceIfindex: number;
  readonly deviceMac: string;
  readonly datapath?: Datapath;
  readonly devices?: NodeDevices;
  readonly writer?: DatapathWriter;
  readonly compiler?: PolicyCompiler;
}

/** What a pod is to be. */
export interface BedPodSpec {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly namedPorts?: AddressRow['namedPorts'];
  /** 0 or 1. */
  readonly node: number;
}

/** A running bed. */
export interface Bed {
  readonly nodes: readonly BedNode[];
  readonly pods: readonly BedPod[];
  pod(name: string): BedPod;
  addPod(spec: BedPodSpec): Promise<BedPod>;
  /** Makes these the policies of all nodes. */
  setPolicies(policies: readonly PolicyRow[]): void;
  close(): void;
}

let beds = 0;
const insert = <R>(key: string | number, after: R) => ({ changes: [{ key, after, revision: 1 }], resync: false });

/** Builds a bed of two nodes joined by a wire. Without `bare`, the datapath is attached as an agent would. */
export async function createBed(options: {
  readonly pods: readonly BedPodSpec[];
  readonly bare?: boolean;
  readonly constants?: DatapathConstants;
  readonly namespaces?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly objects?: string;
  readonly maxEntries?: Record<string, number>;
}): Promise<Bed> {
  const id = `wb${process.pid.toString(36)}${(beds++).toString(36)}`;
  const pinRoot = `/sys/fs/bpf/${id}`;
  const objects = options.objects ?? fileURLToPath(new URL('../../build/bpf', import.meta.url));
  const made: string[] = [];
  const namespaceNames = new Set([
    'default',
    ...Object.keys(options.namespaces ?? {}),
    ...options.pods.map((pod) => pod.namespace ?? 'default'),
  ]);
  const pods: BedPod[] = [];
  const nodes: BedNode[] = [];
  const podLinks: number[] = [0, 0];
  let policies: readonly PolicyRow[] = [];

  function netns(name: string): string {
    createNamedNetns(name);
    made.push(name);
    return name;
  }

  function makeNode(index: number): BedNode {
    const name = `${id}n${index}`;
    netns(name);
    const netnsFd = openNetns(`/run/netns/${name}`);
    const netlink = openNetlink({ netnsFd });
    setLink(netlink, getLink(netlink, 'lo')!.ifindex, { up: true });
    return {
      name: `node${index}`,
      netns: name,
      netnsFd,
      netlink,
      ipv4: `10.9.0.${index + 1}`,
      ipv6: `fd09::${index + 1}`,
      deviceIfindex: 0,
      deviceMac: '',
    };
  }

  const raw = [makeNode(0), makeNode(1)];
  createVeth(raw[0]!.netlink, { name: 'eth0', up: true, peer: { name: 'eth0', up: true, netnsFd: raw[1]!.netnsFd } });
  for (const [index, node] of raw.entries()) {
    const device = getLink(node.netlink, 'eth0')!;
    setLink(node.netlink, device.ifindex, { up: true });
    addAddress(node.netlink, { ifindex: device.ifindex, address: `${node.ipv4}/24` });
    addAddress(node.netlink, { ifindex: device.ifindex, address: `${node.ipv6}/64` });
    withNetns(node.netnsFd, () => {
      writeSysctl('net.ipv4.ip_forward', '1');
      writeSysctl('net.ipv6.conf.all.forwarding', '1');
      writeSysctl('net.ipv4.conf.all.rp_filter', '0');
      writeSysctl('net.ipv4.conf.default.rp_filter', '0');
    });
    if (options.bare) {
      nodes.push({ ...node, deviceIfindex: device.ifindex, deviceMac: device.mac });
      continue;
    }
    const devices = withNetns(node.netnsFd, () => ensureNodeDevices(node.netlink, 1500));
    mkdirSync(`${pinRoot}/${index}`, { recursive: true });
    const datapath = loadDatapath({
      netlink: node.netlink,
      objects,
      pinDir: `${pinRoot}/${index}`,
      constants: { net_ifindex: devices.netIfindex, host_ifindex: devices.hostIfindex, ...options.constants },
      ...(options.maxEntries === undefined ? {} : { maxEntries: options.maxEntries }),
    });
    withNetns(node.netnsFd, () => {
      datapath.attachNode(devices.netIfindex);
      datapath.attachDevice('eth0', device.ifindex);
    });
    nodes.push({
      ...node,
      deviceIfindex: device.ifindex,
      deviceMac: device.mac,
      datapath,
      devices,
      writer: createDatapathWriter(datapath.maps),
      compiler: createPolicyCompiler(),
    });
  }
  for (const [index, node] of nodes.entries()) {
    const other = nodes[1 - index]!;
    replaceRoute(node.netlink, { dst: `10.244.${1 - index}.0/24`, via: other.ipv4, ifindex: node.deviceIfindex });
    replaceRoute(node.netlink, { dst: `fd44:0:0:${2 - index}::/64`, via: other.ipv6, ifindex: node.deviceIfindex });
    if (node.devices === undefined) continue;
    replaceRoute(node.netlink, {
      dst: `10.244.${index}.0/24`,
      via: gateways.ipv4,
      ifindex: node.devices.hostIfindex,
      onlink: true,
      src: node.ipv4,
    });
    replaceRoute(node.netlink, {
      dst: `fd44:0:0:${index + 1}::/64`,
      via: gateways.ipv6,
      ifindex: node.devices.hostIfindex,
      onlink: true,
      src: node.ipv6,
    });
  }

  /** What every node knows from the beginning. */
  for (const [index, node] of nodes.entries()) {
    if (node.compiler === undefined) continue;
    const apply = (changes: Parameters<PolicyCompiler['update']>[0]) =>
      node.writer!.apply(node.compiler!.update(changes));
    for (const name of namespaceNames)
      apply({
        namespaces: insert(name, {
          name,
          labels: { 'kubernetes.io/metadata.name': name, ...options.namespaces?.[name] },
        }),
      });
    for (const [cidr, identity, local] of [
      ['0.0.0.0/0', reservedIdentities['world-ipv4'], false],
      ['::/0', reservedIdentities['world-ipv6'], false],
      ['10.244.0.0/16', reservedIdentities.unmanaged, false],
      ['fd44::/16', reservedIdentities.unmanaged, false],
      [`10.244.${index}.0/24`, reservedIdentities.unmanaged, true],
      [`fd44:0:0:${index + 1}::/64`, reservedIdentities.unmanaged, true],
    ] as const) {
      apply({ prefixes: insert(cidr, { cidr, identity, ...(local ? { local } : {}) }) });
    }
    for (const [other, peer] of nodes.entries()) {
      for (const address of [peer.ipv4, peer.ipv6]) {
        const row: AddressRow = {
          address,
          identity: other === index ? reservedIdentities.host : reservedIdentities['remote-node'],
          kind: other === index ? 'host' : 'remote-node',
          node: peer.name,
          namedPorts: [],
          ifindex: 0,
          endpointId: 0,
        };
        apply({ addresses: insert(address, row) });
      }
    }
  }

  async function addPod(spec: BedPodSpec): Promise<BedPod> {
    const node = nodes[spec.node]!;
    const number = ++podLinks[spec.node]!;
    const name = netns(`${id}-${spec.name}`);
    const ipv4 = `10.244.${spec.node}.${number}`;
    const ipv6 = `fd44:0:0:${spec.node + 1}::${number.toString(16)}`;
    const namespace = spec.namespace ?? 'default';
    const labels = identityLabels({ namespace, serviceAccount: 'default', labels: spec.labels ?? { app: spec.name } });
    const identity = identityFor(labels.join());
    let ifindex = 0;
    if (options.bare) addBarePod(node, name, number, ipv4, ipv6);
    else {
      const interfaces = withNetns(node.netnsFd, createPodInterfaces);
      const result = await interfaces.create(
        { netns: `/run/netns/${name}`, ifname: 'eth0', hostName: `weir${number}`, mtu: 1500, ipv4, ipv6 },
        (index) => withNetns(node.netnsFd, () => node.datapath!.attachPod(index)),
      );
      interfaces.close();
      ifindex = result.ifindex;
    }
    const pod: BedPod = {
      name: spec.name,
      namespace,
      labels: spec.labels ?? { app: spec.name },
      node: spec.node,
      netns: name,
      ipv4,
      ipv6,
      identity,
      ifindex,
    };
    pods.push(pod);
    for (const [index, each] of nodes.entries()) {
      if (each.compiler === undefined) continue;
      const local = index === spec.node;
      if (local)
        each.writer!.putEndpoint({
          id: number,
          ifindex,
          ipv4,
          ipv6,
          identity,
          namespace,
          pod: spec.name,
        } as EndpointRow);
      each.writer!.apply(each.compiler.update({ identities: insert(identity, { id: identity, labels }) }));
      for (const address of [ipv4, ipv6]) {
        const row: AddressRow = {
          address,
          identity,
          kind: 'pod',
          namespace,
          pod: spec.name,
          node: node.name,
          namedPorts: spec.namedPorts ?? [],
          ifindex: local ? ifindex : 0,
          endpointId: local ? number : 0,
        };
        each.writer!.apply(each.compiler.update({ addresses: insert(address, row) }));
      }
    }
    return pod;
  }

  const known = new Map<string, number>();
  function identityFor(labels: string): number {
    const before = known.get(labels);
    if (before !== undefined) return before;
    known.set(labels, 256 + known.size);
    return 255 + known.size;
  }

  function addBarePod(node: BedNode, name: string, number: number, ipv4: string, ipv6: string): void {
    const fd = openNetns(`/run/netns/${name}`);
    createVeth(node.netlink, { name: `pod${number}`, up: true, peer: { name: 'eth0', up: true, netnsFd: fd } });
    const near = getLink(node.netlink, `pod${number}`)!;
    setLink(node.netlink, near.ifindex, { up: true });
    const inside = openNetlink({ netnsFd: fd });
    const far = getLink(inside, 'eth0')!;
    setLink(inside, far.ifindex, { up: true });
    addAddress(node.netlink, { ifindex: near.ifindex, address: '169.254.1.1/32' });
    addAddress(node.netlink, { ifindex: near.ifindex, address: 'fe80::1/64' });
    addAddress(inside, { ifindex: far.ifindex, address: `${ipv4}/32` });
    addAddress(inside, { ifindex: far.ifindex, address: `${ipv6}/128` });
    replaceRoute(inside, { dst: '169.254.1.1/32', ifindex: far.ifindex, scope: 'link' });
    replaceRoute(inside, { dst: '0.0.0.0/0', via: '169.254.1.1', ifindex: far.ifindex });
    replaceRoute(inside, { dst: '::/0', via: 'fe80::1', ifindex: far.ifindex });
    replaceRoute(node.netlink, { dst: `${ipv4}/32`, ifindex: near.ifindex, scope: 'link' });
    replaceRoute(node.netlink, { dst: `${ipv6}/128`, ifindex: near.ifindex });
    inside.close();
    closeSync(fd);
  }

  const bed: Bed = {
    nodes,
    pods,
    pod(name) {
      const found = pods.find((each) => each.name === name);
      if (found === undefined) throw new Error(`the bed has no pod ${name}`);
      return found;
    },
    addPod,
    setPolicies(next) {
      const changes = [
        ...policies
          .filter((row) => !next.some((each) => each.key === row.key))
          .map((before) => ({ key: before.key, before, revision: 1 })),
        ...next.map((after) => ({ key: after.key, after, revision: 1 })),
      ];
      policies = next;
      for (const node of nodes)
        if (node.compiler !== undefined)
          node.writer!.apply(node.compiler.update({ policies: { changes, resync: false } }));
    },
    close() {
      for (const node of nodes) {
        node.datapath?.close();
        node.netlink.close();
        closeSync(node.netnsFd);
      }
      for (const name of made) deleteNamedNetns(name);
      rmSync(pinRoot, { recursive: true, force: true });
    },
  };
  for (const spec of options.pods) await addPod(spec);
  return bed;
}
