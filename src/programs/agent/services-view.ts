// Services as the local API shows them: frontends with who serves them, and what is wrong.
import { createServicePick, type PickReason } from '../../connect/services/service-pick.ts';
import { WeirError } from '../../core/errors.ts';
import { canonicalIp } from '../../core/ip.ts';
import {
  type BackendRole,
  type FrontendBackend,
  type FrontendRow,
  protocolNumbers,
  type ServiceRow,
} from '../../core/rows.ts';
import { netnsCookie, withNetns } from '../../kernel/netns.ts';
import type { Agent } from './agent.ts';
import { openConnections } from './open-connections.ts';

/** One backend of a frontend. */
export interface BackendView extends BackendRole {
  readonly address: string;
  readonly port: number;
  /** Connections that this node has handed to it, since it is a backend. The frontends of a port share the count. This and
   * the next are looked up where one Service is asked for. */
  readonly connections?: number;
  /** Connections to it by way of the Service that this node knows of and that have not ended. */
  readonly open?: number;
}

/** One frontend of a Service on a node. */
export interface FrontendView extends Omit<FrontendRow, 'key' | 'service' | 'directReturn' | 'backends'> {
  readonly backends: readonly BackendView[];
  /** In the kernel, and by which number; else why not. */
  readonly id?: number;
  readonly state: 'written' | 'pending' | 'error';
  readonly error?: string;
  /** The algorithm in use: random where there was no room for a Maglev table. */
  readonly algorithm: FrontendRow['algorithm'];
  /** How packets from outside get to backends on other nodes. */
  readonly mode: 'dsr' | 'snat';
}

/** A Service on a node. */
export interface ServiceView {
  readonly node: string;
  readonly namespace: string;
  readonly name: string;
  readonly type: ServiceRow['type'] | 'HostPort';
  readonly frontends: readonly FrontendView[];
  readonly internalTrafficPolicy: 'Cluster' | 'Local';
  readonly externalTrafficPolicy: 'Cluster' | 'Local';
  readonly affinitySeconds?: number;
  readonly healthCheckNodePort?: number;
  readonly problems: readonly string[];
}

/** Which backend a connection gets, and why. */
export interface WhyView {
  readonly node: string;
  readonly client: string;
  readonly clientPort: number;
  readonly address: string;
  readonly port: number;
  readonly protocol: string;
  /** How the client is seen: its sockets are translated, or its packets are, or it is another node's matter. */
  readonly seen: 'socket' | 'packet' | 'elsewhere';
  /** The node that decides, when it is not this one. */
  readonly elsewhere?: string;
  readonly frontend?: { readonly service: string; readonly kind: string; readonly scope: string; readonly id: number };
  readonly admitted?: boolean;
  readonly reason?: PickReason;
  readonly backend?: BackendView;
  /** Who may be chosen where dice are rolled. */
  readonly candidates?: readonly BackendView[];
}

/** All Services of the node, host ports among them. */
export function servicesOf(agent: Agent): ServiceView[] {
  const { frontends, services } = agent.services;
  const byService = new Map<string, FrontendRow[]>();
  for (const row of services.rows()) byService.set(row.key, []);
  for (const row of frontends.rows()) {
    const list = byService.get(row.service);
    if (list === undefined) byService.set(row.service, [row]);
    else list.push(row);
  }
  return [...byService]
    .map(([key, rows]) => viewOf(agent, key, rows))
    .sort((a, b) => a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name));
}

/** One Service; undefined when the node knows none of that name. */
export function serviceOf(agent: Agent, key: string): ServiceView | undefined {
  const rows = [...agent.services.frontends.rows()].filter((row) => row.service === key);
  return rows.length === 0 && !agent.services.services.has(key)
    ? undefined
    : viewOf(agent, key, rows, openConnections(agent));
}

function viewOf(
  agent: Agent,
  key: string,
  rows: readonly FrontendRow[],
  open?: ReturnType<typeof openConnections>,
): ServiceView {
  const service = agent.services.services.get(key);
  const [namespace = '', name = ''] = key.split('/');
  return {
    node: agent.settings.nodeName,
    namespace,
    name,
    type: service?.type ?? 'HostPort',
    frontends: rows.map((row) => frontendView(agent, row, open)),
    internalTrafficPolicy: service?.internalLocal ? 'Local' : 'Cluster',
    externalTrafficPolicy: service?.externalLocal ? 'Local' : 'Cluster',
    ...(service?.affinitySeconds === undefined ? {} : { affinitySeconds: service.affinitySeconds }),
    ...(service?.healthCheckNodePort === undefined ? {} : { healthCheckNodePort: service.healthCheckNodePort }),
    problems: agent.services.problemsOf(key),
  };
}

function frontendView(agent: Agent, row: FrontendRow, open?: ReturnType<typeof openConnections>): FrontendView {
  const { target, reconciler } = agent.services;
  const written = target.get(row.key);
  const status = reconciler.status(row.key);
  const failure = status === 'error' ? reconciler.unfinished().find((each) => each.key === row.key)?.error : undefined;
  const { key: _, service: __, directReturn, backends, ...shown } = row;
  return {
    ...shown,
    backends: backends.map((backend, i) => {
      if (open === undefined) return backendView(backend);
      const number = written?.row === row ? written.backends[i] : undefined;
      const connections = number === undefined ? undefined : target.connections(number);
      return {
        ...backendView(backend),
        ...(connections === undefined ? {} : { connections }),
        open: open(row, backend),
      };
    }),
    state: status === 'done' ? 'written' : (status ?? 'pending'),
    ...(failure === undefined ? {} : { error: failure }),
    algorithm: written?.table.algorithm ?? row.algorithm,
    mode: directReturn ? 'dsr' : 'snat',
  };
}

const backendView = ({ address, port, role }: FrontendBackend): BackendView => ({ address, port, ...role });

/** Answers `weir service why`. The query names client, address, port and protocol, and clientPort if it is known. */
export function createWhy(agent: Agent): (query: URLSearchParams) => WhyView {
  const { settings, services } = agent;
  const pick = createServicePick({
    objects: settings.objects,
    pinDir: `${settings.bpffs}/weir`,
    maxEntries: settings.mapEntries,
  });
  return (query) => {
    const client = addressIn(query, 'client');
    const address = addressIn(query, 'address');
    const port = portIn(query, 'port');
    const clientPort = query.has('clientPort') ? portIn(query, 'clientPort') : 40_000;
    const protocol = (query.get('protocol') ?? 'TCP').toUpperCase();
    if (!Object.hasOwn(protocolNumbers, protocol))
      throw new WeirError('CONFIG_INVALID', `protocol=${protocol} is none of TCP, UDP and SCTP`);
    const who = agent.addresses.get(client);
    const asked = { node: settings.nodeName, client, clientPort, address, port, protocol };
    const pod = who?.kind === 'pod';
    if (pod && who.ifindex === 0) return { ...asked, seen: 'elsewhere', elsewhere: who.node };
    if (who?.kind === 'remote-node') return { ...asked, seen: 'elsewhere', elsewhere: who.node };
    const netns = pod ? podCookie(agent, who.endpointId) : who?.kind === 'host' ? netnsCookie() : undefined;
    const inside = pod || netns !== undefined;
    const to = agent.addresses.get(address)?.kind;
    const question = {
      client,
      clientPort,
      address,
      port,
      protocol: protocolNumbers[protocol as keyof typeof protocolNumbers],
      scope: inside ? ('inside' as const) : ('outside' as const),
      nodePort: to === 'host' || to === 'remote-node',
    } as const;
    let seen: 'packet' | 'socket' = netns === undefined ? 'packet' : 'socket';
    let answer = pick.ask({ ...question, netns });
    const written = answer && services.target.byId(answer.service);
    // Frontends for some clients only are left to the packets of pods.
    if (pod && netns !== undefined && written?.row.sourceRanges !== undefined) {
      seen = 'packet';
      answer = pick.ask(question);
    }
    if (answer === undefined) return { ...asked, seen };
    const picked = answer.backend === undefined ? undefined : services.target.backendByNumber(answer.backend)?.backend;
    const backend = picked && backendView(picked);
    return {
      ...asked,
      seen,
      ...(written === undefined
        ? {}
        : {
            frontend: {
              service: written.row.service,
              kind: written.row.kind,
              scope: written.row.scope,
              id: written.id,
            },
          }),
      admitted: answer.admitted,
      reason: answer.reason,
      ...(backend === undefined ? {} : { backend }),
      ...(answer.reason === 'random' && backend === undefined
        ? { candidates: written?.row.backends.map(backendView).filter((each) => each.state === 'serving') ?? [] }
        : {}),
    };
  };
}

function podCookie(agent: Agent, endpoint: number): bigint | undefined {
  const netns = agent.endpoints.get(endpoint)?.netns;
  try {
    return netns === undefined ? undefined : withNetns(netns, netnsCookie);
  } catch {
    return undefined; // The pod goes at this moment: its packets are all that is left of it.
  }
}

function addressIn(query: URLSearchParams, name: string): string {
  const text = query.get(name) ?? '';
  const address = canonicalIp(text);
  if (address === undefined || text.includes('/'))
    throw new WeirError('CONFIG_INVALID', `${name}=${text} is not an address`);
  return address;
}

function portIn(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? '';
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535)
    throw new WeirError('CONFIG_INVALID', `${name}=${text} is not a port`);
  return port;
}

/** Answers `weir backend drain` and `activate`. */
export function setMaintenance(agent: Agent, query: URLSearchParams): { changed: boolean; services: string[] } {
  const address = addressIn(query, 'address');
  const port = portIn(query, 'port');
  const changed = agent.services.maintenance.set(address, port, query.get('state') === 'drained');
  const has = (row: FrontendRow) => row.backends.some((each) => each.address === address && each.port === port);
  return {
    changed,
    services: [...new Set([...agent.services.frontends.rows()].filter(has).map((row) => row.service))],
  };
}
