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
  const config = typedMap(agent.datapath.map('lb_config'), datapathMaps.lb_config).lookup(0);
  const backends = typedMap(agent.datapath.map('backends'), datapathMaps.backends);
  const flows = typedMap(agent.datapath.map('service_flows'), datapathMaps.service_flows);
  const rows = [...flows.entries()].flatMap(({ key, value }): NatView | [] => {
    const backend = backends.lookup(value.backend);
    if (backend?.generation !== value.generation) return []; // Its backend is gone: the next packet is given another.
    const client = addressText(key.src);
    const natAddress = value.flags & FLOW_SNAT && (client.includes(':') ? config?.nat6 : config?.nat4);
    return {
      client,
      clientPort: key.sport,
      frontend: addressText(key.dst),
      frontendPort: key.dport,
      protocol: key.protocol,
      backend: addressText(backend.addr),
      backendPort: backend.port,
      mode: natAddress ? 'snat' : value.flags & FLOW_DSR ? 'dsr' : value.flags & FLOW_STACK ? 'stack' : 'local',
      ...(natAddress ? { natAddress: addressText(natAddress), natPort: value.natPort } : {}),
      service: agent.services.target.byId(value.service)?.row.service,
      state: value.flags & FLOW_CLOSING ? 'closing' : value.flags & FLOW_REPLIED ? 'open' : 'opening',
      idleSeconds: Math.round(Math.max(0, (now - value.lastSeen) | 0) * tickMs) / 1000,
      lifetimeSeconds: Math.round(value.lifetime * tickMs) / 1000,
    };
  });
  return rows.sort((a, b) => a.idleSeconds - b.idleSeconds).slice(0, limit);
}
