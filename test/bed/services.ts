// Services on a bed: frontends given as rows, written by the agent's own target, with the balancer's settings.
import { fileURLToPath } from 'node:url';
import { addressBytes } from '../../src/connect/datapath/address-keys.ts';
import { natAddress } from '../../src/connect/ipam/nat-address.ts';
import { frontendKey } from '../../src/connect/services/derive-frontends.ts';
import { createServiceTarget, type ServiceTarget } from '../../src/connect/services/service-target.ts';
import { reservedIdentities } from '../../src/core/identity.ts';
import type { AddressRow, FrontendBackend, FrontendRow } from '../../src/core/rows.ts';
import { type LoadedObject, loadObject } from '../../src/kernel/bpf-object.ts';
import { datapathMaps, LbConfigFlags } from '../../src/kernel/datapath.gen.ts';
import { mmapArray } from '../../src/kernel/mmap-array.ts';
import type { Bed, BedNode, BedPod } from './bed.ts';

/** Where a service is to be had, in both families. */
export interface BedFrontend {
  readonly ipv4: string;
  readonly ipv6: string;
  readonly port: number;
  readonly targetPort: number;
  /** One without a device is on its node's own network. */
  readonly backends: readonly Pick<BedPod, 'ipv4' | 'ipv6' | 'node' | 'ifindex'>[];
  readonly protocol?: FrontendRow['protocol'];
  readonly kind?: FrontendRow['kind'];
  readonly directReturn?: boolean;
  readonly affinitySeconds?: number;
  /** Maglev when left out. */
  readonly algorithm?: FrontendRow['algorithm'];
  readonly sourceRanges?: readonly string[];
  /** Whose it is: "default/web" when left out. */
  readonly service?: string;
}

/** Services of a bed. */
export interface BedServices {
  readonly targets: readonly ServiceTarget[];
  /** The balancer of a node for XDP. */
  readonly xdp: readonly LoadedObject[];
  /** Adds a frontend on both nodes, inside and outside. */
  add(frontend: BedFrontend): void;
  remove(frontend: BedFrontend): void;
  close(): void;
}

/** The address behind which a node translates. */
export function natEnd(node: number): { ipv4: string; ipv6: string } {
  return { ipv4: natAddress(`10.244.${node}.0/24`)!, ipv6: natAddress(`fd44:0:0:${node + 1}::/64`)! };
}

/** Prepares a bed with the datapath for services. */
export function createBedServices(
  bed: Bed,
  options: { readonly tunnel?: boolean; readonly refuseDenied?: boolean } = {},
): BedServices {
  const closers: (() => void)[] = [];
  const xdp: LoadedObject[] = [];
  const objects = fileURLToPath(new URL('../../build/bpf', import.meta.url));
  const targets = bed.nodes.map((node, index) => {
    const map = (name: string) => node.datapath!.map(name);
    const slots = mmapArray(map('lb_slots'));
    const backends = mmapArray(map('backends'));
    const backendCounts = mmapArray(map('backend_counts'));
    const nat = natEnd(index);
    map('lb_config').update(
      datapathMaps.lb_config.key.encode(0),
      datapathMaps.lb_config.value.encode({
        nat4: addressBytes(nat.ipv4),
        nat6: addressBytes(nat.ipv6),
        node4: addressBytes(node.ipv4),
        node6: addressBytes(node.ipv6),
        flags:
          (options.tunnel ? LbConfigFlags.LB_DSR_TUNNEL : 0) | (options.refuseDenied ? LbConfigFlags.LB_DENY_ICMP : 0),
      }),
    );
    for (const other of bed.nodes.keys()) knowNatAddress(node, other, other === index);
    const reuse = Object.fromEntries(
      [
        'services',
        'lb_slots',
        'backends',
        'backend_counts',
        'source_ranges',
        'direct_backends',
        'lb_config',
        'service_flows',
        'service_replies',
        'service_openings',
        'service_affinity',
        'ipcache',
        'counters',
      ].map((name) => [name, map(name)]),
    );
    const balancer = loadObject({ path: `${objects}/xdp.bpf.o`, reuse });
    xdp.push(balancer);
    closers.push(slots.close, backends.close, backendCounts.close, balancer.close);
    return createServiceTarget({
      services: map('services'),
      sourceRanges: map('source_ranges'),
      directBackends: map('direct_backends'),
      slots,
      backends,
      backendCounts,
    });
  });
  return {
    targets,
    xdp,
    add(frontend) {
      for (const [index, target] of targets.entries()) {
        const failed = target.update(rowsOf(frontend, index));
        if (failed instanceof Promise || (failed ?? []).length > 0) throw new Error(JSON.stringify(failed));
      }
    },
    remove(frontend) {
      for (const [index, target] of targets.entries()) void target.delete(rowsOf(frontend, index));
    },
    close() {
      for (const close of closers) close();
    },
  };
}

function rowsOf(frontend: BedFrontend, node: number): FrontendRow[] {
  const kind = frontend.kind ?? 'LoadBalancer';
  return (['ipv4', 'ipv6'] as const).flatMap((family) =>
    (['inside', 'outside'] as const).map((scope): FrontendRow => {
      const protocol = frontend.protocol ?? 'TCP';
      const ranges = frontend.sourceRanges?.filter((cidr) => cidr.includes(':') === (family === 'ipv6'));
      return {
        key: frontendKey(scope, frontend[family], frontend.port, protocol),
        address: frontend[family],
        port: frontend.port,
        protocol,
        scope,
        kind,
        service: frontend.service ?? 'default/web',
        portName: `${frontend.port}`,
        algorithm: frontend.algorithm ?? 'maglev',
        affinitySeconds: frontend.affinitySeconds ?? 0,
        onlyLocal: false,
        directReturn: frontend.directReturn ?? false,
        ...(ranges === undefined ? {} : { sourceRanges: ranges }),
        backends: frontend.backends.map(
          (pod): FrontendBackend => ({
            address: pod[family],
            port: frontend.targetPort,
            role: {
              state: 'serving',
              where: pod.node !== node ? 'remote' : pod.ifindex === 0 ? 'node' : 'pod',
              weight: 1,
            },
          }),
        ),
      };
    }),
  );
}

function knowNatAddress(node: BedNode, of: number, here: boolean): void {
  const changes = Object.values(natEnd(of)).map((address) => {
    const after: AddressRow = {
      address,
      identity: reservedIdentities[address.includes(':') ? 'world-ipv6' : 'world-ipv4'],
      kind: 'nat',
      namedPorts: [],
      ifindex: 0,
      endpointId: 0,
      ...(here ? { here } : {}),
    };
    return { key: address, after, revision: 1 };
  });
  node.writer!.apply(node.compiler!.update({ addresses: { changes, resync: false } }));
}
