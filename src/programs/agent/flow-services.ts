// Which Service a flow's connection was made to: the datapath says the frontend of what it translated per packet; what
// sockets did is remembered in the kernel for TCP, and guessed for UDP where only one Service has the backend.
import { addressText } from '../../connect/datapath/address-keys.ts';
import type { ServiceTarget } from '../../connect/services/service-target.ts';
import type { FrontendRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps, ServiceFlowKeyOffset } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { FlowService } from '../../observe/flows/flow-row.ts';
import type { FlowServices } from '../../observe/flows/record-flows.ts';
import { createBackendMemory } from './backend-memory.ts';

const TCP = 6;
const UDP = 17;
/** Names are made again at most so often. */
const rebuildMs = 1_000;

/** Looks Services up for flows. */
export function createFlowServices(options: {
  readonly target: Pick<ServiceTarget, 'byId'>;
  readonly frontends: ReadTable<FrontendRow>;
  /** The map `socket_services`. */
  readonly sockets: BpfMap;
  readonly nowMs?: () => number;
}): FlowServices & { close(): void } {
  const { target, frontends, nowMs = () => performance.now() } = options;
  const sockets = typedMap(options.sockets, datapathMaps.socket_services);
  const backends = createBackendMemory(frontends, () => backendsOf(options.sockets));
  const named = new Map<string, FlowService>();
  let udp = new Map<string, FlowService | 'several'>();
  let udpRevision = -1;
  let udpAtMs = Number.NEGATIVE_INFINITY;

  /** One object for all flows of a Service. */
  function nameOf(key: string): FlowService {
    let service = named.get(key);
    if (service === undefined) {
      const [namespace = '', name = ''] = key.split('/');
      service = { namespace, name };
      named.set(key, service);
    }
    return service;
  }

  function byFrontend(number: number): FlowService | undefined {
    const row = target.byId(number)?.row;
    // A host port is its pod's, not a Service's.
    return row === undefined || row.kind === 'HostPort' ? undefined : nameOf(row.service);
  }

  function udpBackends(): typeof udp {
    const now = nowMs();
    if (udpRevision === frontends.revision || now - udpAtMs < rebuildMs) return udp;
    udpRevision = frontends.revision;
    udpAtMs = now;
    udp = new Map();
    named.clear();
    for (const row of frontends.rows()) {
      if (row.protocol !== 'UDP' || row.scope !== 'inside' || row.kind === 'HostPort') continue;
      const service = nameOf(row.service);
      for (const { address, port } of row.backends) {
        const key = `${address} ${port}`;
        const known = udp.get(key);
        udp.set(key, known === undefined || known === service ? service : 'several');
      }
    }
    return udp;
  }

  return {
    byFrontend,
    mayServe: backends.mayHave,
    close: backends.close,
    bySocket({ addresses, sourcePort, destinationPort, protocol }) {
      const dst = addresses.subarray(16);
      if (protocol === TCP) {
        const key = { src: addresses.subarray(0, 16), dst, sport: sourcePort, dport: destinationPort, protocol };
        const socket = sockets.lookup(key);
        return socket && byFrontend(socket.service);
      }
      if (protocol !== UDP) return undefined;
      const service = udpBackends().get(`${addressText(dst)} ${destinationPort}`);
      return service === 'several' ? undefined : service;
    },
  };
}

/** The backends that sockets talk to. */
function* backendsOf(sockets: BpfMap): Generator<readonly [Uint8Array, number]> {
  for (const { key } of sockets.entries()) {
    const view = new DataView(key.buffer, key.byteOffset);
    const address = key.subarray(ServiceFlowKeyOffset.dst, ServiceFlowKeyOffset.dst + 16);
    yield [address, view.getUint16(ServiceFlowKeyOffset.dport)];
  }
}
