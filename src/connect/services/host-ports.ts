// Ports of a node that lead to one pod of it (`hostPort`).
import type { BackendRole, EndpointRow, FrontendRow, PodRow } from '../../core/rows.ts';
import { anyAddress, frontendKey } from './derive-frontends.ts';
import type { ExtraFrontends } from './service-derivation.ts';

/** The frontends of one pod; `own` are the addresses of its node. */
export function hostPortFrontends(pod: PodRow, endpoint: EndpointRow, own: readonly string[]): ExtraFrontends {
  const frontends: FrontendRow[] = [];
  for (const [family, address] of [
    [4, endpoint.ipv4],
    [6, endpoint.ipv6],
  ] as const) {
    if (address === undefined) continue;
    for (const port of pod.hostPorts ?? []) {
      const only = port.hostIp;
      if (only !== undefined && only.includes(':') !== (family === 6)) continue;
      // Any address may stand here: one that is not the node's would take somebody else's traffic.
      if (only !== undefined && !own.includes(only) && !isLoopback(only)) continue;
      const isFamily = (text: string) => text.includes(':') === (family === 6);
      const outside = only === undefined ? own.filter(isFamily) : [only];
      const inside = only ?? anyAddress[family];
      for (const [scope, at] of [['inside', inside] as const, ...outside.map((each) => ['outside', each] as const)])
        frontends.push({
          key: frontendKey(scope, at, port.hostPort, port.protocol),
          address: at,
          port: port.hostPort,
          protocol: port.protocol,
          scope,
          kind: 'HostPort',
          service: pod.key,
          portName: `host-port-${port.hostPort}`,
          algorithm: 'random',
          affinitySeconds: 0,
          onlyLocal: true,
          directReturn: false,
          backends: [{ address, port: port.containerPort, role: ofThisNode }],
        });
    }
  }
  return { owner: `pod ${pod.key}`, createdAt: new Date(endpoint.createdAtMs).toISOString(), frontends };
}

const ofThisNode: BackendRole = { state: 'serving', where: 'pod', weight: 1 };
const isLoopback = (address: string) => address === '::1' || address.startsWith('127.');
