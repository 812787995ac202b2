// How many connections each backend has now, as far as this node sees them: those of the connection table that were made
// through a Service, and those that the balancer translates to other nodes.
import { addressText } from '../../connect/datapath/address-keys.ts';
import { type FrontendRow, protocolNumbers } from '../../core/rows.ts';
import { CtFlags, CtState, datapathMaps, ServiceFlowFlags } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { Agent } from './agent.ts';

/** Reads the tables once. Frontends of one port of a Service share their backends, and so the answer. */
export function openConnections(
  agent: Agent,
): (row: FrontendRow, backend: { readonly address: string; readonly port: number }) => number {
  const now = Number(process.hrtime.bigint() >> 20n) >>> 0;
  const counts = new Map<string, number>();
  // What sockets were given in the system call: the connection table does not know the frontend of those. TCP only.
  const ofSockets = new Map<string, number>();
  const endsKey = (source: string, sourcePort: number, destination: string, destinationPort: number) =>
    `${source} ${sourcePort} ${destination} ${destinationPort}`;
  for (const { key, value } of typedMap(
    agent.services.hooks.map('socket_services'),
    datapathMaps.socket_services,
  ).entries())
    ofSockets.set(endsKey(addressText(key.src), key.sport, addressText(key.dst), key.dport), value.service);
  const alive = (entry: { readonly lastSeen: number; readonly lifetime: number }) =>
    ((now - entry.lastSeen) | 0) <= entry.lifetime;
  const add = (service: number, address: string, port: number, protocol: number) => {
    const row = agent.services.target.byId(service)?.row;
    if (row === undefined || protocolNumbers[row.protocol] !== protocol) return;
    const key = keyOf(row, { address, port });
    counts.set(key, (counts.get(key) ?? 0) + 1);
  };
  const four = (address: number) =>
    [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
  const tables = [
    { rows: typedMap(agent.datapath.map('ct4'), datapathMaps.ct4).entries(), text: four },
    { rows: typedMap(agent.datapath.map('ct6'), datapathMaps.ct6).entries(), text: addressText },
  ] as { rows: { key: CtKey; value: CtValue }[]; text: (address: unknown) => string }[];
  for (const { rows, text } of tables)
    for (const { key, value } of rows) {
      if (value.verdict !== 0 || !alive(value)) continue;
      if (value.state !== CtState.CT_OPENING && value.state !== CtState.CT_OPEN) continue;
      const low = [text(key.loAddr), key.loPort] as const;
      const high = [text(key.hiAddr), key.hiPort] as const;
      const [from, to] = (value.flags & CtFlags.CT_ORIGINATOR_HI) === 0 ? [low, high] : [high, low];
      const service = value.service || ofSockets.get(endsKey(...from, ...to));
      if (service !== undefined) add(service, ...to, key.protocol);
    }
  const { FLOW_LOCAL, FLOW_CLOSING } = ServiceFlowFlags;
  const backends = typedMap(agent.datapath.map('backends'), datapathMaps.backends);
  // Those to pods of this node are in the connection table.
  for (const { key, value } of typedMap(agent.datapath.map('service_flows'), datapathMaps.service_flows).entries())
    if ((value.flags & (FLOW_LOCAL | FLOW_CLOSING)) === 0 && alive(value)) {
      const backend = backends.lookup(value.backend);
      if (backend !== undefined && backend.generation === value.generation)
        add(value.service, addressText(backend.addr), backend.port, key.protocol);
    }
  return (row, backend) => counts.get(keyOf(row, backend)) ?? 0;
}

interface CtKey {
  readonly loAddr: unknown;
  readonly hiAddr: unknown;
  readonly loPort: number;
  readonly hiPort: number;
  readonly protocol: number;
}

interface CtValue {
  readonly service: number;
  readonly verdict: number;
  readonly state: number;
  readonly flags: number;
  readonly lastSeen: number;
  readonly lifetime: number;
}

const keyOf = (row: FrontendRow, { address, port }: { readonly address: string; readonly port: number }) =>
  `${row.service}:${row.portName}/${row.protocol} ${address} ${port}`;
