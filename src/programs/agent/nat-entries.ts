// The translations of the balancer as people read them: who asked for what, and where it goes.
import { addressText } from '../../connect/datapath/address-keys.ts';
import { datapathMaps, ServiceFlowFlags } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { Agent } from './agent.ts';

/** A connection to a frontend. */
export interface NatView {
  readonly client: string;
  readonly clientPort: number;
  readonly frontend: string;
  readonly frontendPort: number;
  readonly protocol: number;
  readonly backend: string;
  readonly backendPort: number;
  /** `snat`: behind an address of this node; `dsr`: the backend answers itself; `local`: a pod of this node. */
  readonly mode: 'snat' | 'dsr' | 'local' | 'stack';
  /** With `snat`. */
  readonly natAddress?: string;
  readonly natPort?: number;
  /** "namespace/name"; undefined when the frontend is gone. */
  readonly service?: string;
  readonly state: 'opening' | 'open' | 'closing';
  readonly idleSeconds: number;
  readonly lifetimeSeconds: number;
}

const tickMs = 2 ** 20 / 1e6;
const { FLOW_SNAT, FLOW_DSR, FLOW_STACK, FLOW_REPLIED, FLOW_CLOSING } = ServiceFlowFlags;

/** The most recently used first. */
export function natEntries(agent: Agent, limit: number): NatView[] {
  const now = Number(process.hrtime.bigint() >> 20n) >>> 0;
  const flows = typedMap(agent.datapath.map('service_flows'), datapathMaps.service_flows);
  const rows = [...flows.entries()].map(({ key, value }): NatView => {
    const snat = (value.flags & FLOW_SNAT) !== 0;
    return {
      client: addressText(key.src),
      clientPort: key.sport,
      frontend: addressText(key.dst),
      frontendPort: key.dport,
      protocol: key.protocol,
      backend: addressText(value.addr),
      backendPort: value.port,
      mode: snat ? 'snat' : value.flags & FLOW_DSR ? 'dsr' : value.flags & FLOW_STACK ? 'stack' : 'local',
      ...(snat ? { natAddress: addressText(value.natAddr), natPort: value.natPort } : {}),
      service: agent.services.target.byId(value.service)?.row.service,
      state: value.flags & FLOW_CLOSING ? 'closing' : value.flags & FLOW_REPLIED ? 'open' : 'opening',
      idleSeconds: Math.round(Math.max(0, (now - value.lastSeen) | 0) * tickMs) / 1000,
      lifetimeSeconds: Math.round(value.lifetime * tickMs) / 1000,
    };
  });
  return rows.sort((a, b) => a.idleSeconds - b.idleSeconds).slice(0, limit);
}
