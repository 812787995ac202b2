// Which frontends a Service has on this node and who serves them: a pure function of the Service, its slices and the node.
// Semantics are kube-proxy's, so that a cluster behaves the same: traffic policies, terminating endpoints, topology hints.
import { createInterned } from '../../core/interned.ts';
import type {
  BackendRole,
  BackendState,
  EndpointFacts,
  FrontendBackend,
  FrontendKind,
  FrontendRow,
  FrontendScope,
  PortProtocol,
  ServicePort,
  ServiceRow,
  ServiceSliceRow,
} from '../../core/rows.ts';

/** What of a node decides about frontends. */
export interface NodeContext {
  readonly name: string;
  readonly zone?: string;
  /** Its own addresses: node ports are served on each. */
  readonly addresses: ReadonlySet<string>;
  /** Answers of remote backends go straight to the client, for these protocols. */
  readonly directReturn: readonly PortProtocol[];
  /** The namespace of a pod's address; undefined for what is no pod. */
  readonly namespaceOf: (address: string) => string | undefined;
  /** Taken out by hand: gets no new connections. */
  readonly inMaintenance: (address: string, port: number) => boolean;
  /** Why a Service may not claim this address from outside; undefined when it may. */
  readonly refuseClaim: (address: string, service: ServiceRow) => string | undefined;
}

/** A Service's frontends, and what was left out of them. */
export interface ServiceFrontends {
  readonly frontends: readonly FrontendRow[];
  readonly problems: readonly string[];
  /** Ready endpoints on this node in the family that has more, for the health check port. */
  readonly localReady: number;
}

/** "every address of a node", by family. */
export const anyAddress = { 4: '0.0.0.0', 6: '::' } as const;

interface Candidate {
  readonly address: string;
  readonly port: number;
  readonly is: EndpointFacts;
  readonly maintenance: boolean;
}

const none: readonly never[] = [];
const backendRole = createInterned<BackendRole>(50_000);
type Family = 4 | 6;
const familyOf = (text: string): Family => (text.includes(':') ? 6 : 4);
const families: readonly Family[] = [4, 6];

/** The key of a frontend. */
export function frontendKey(scope: FrontendScope, address: string, port: number, protocol: PortProtocol): string {
  return `${scope} ${address.includes(':') ? `[${address}]` : address}:${port}/${protocol}`;
}

/** All frontends of one Service. */
export function frontendsOf(
  service: ServiceRow,
  slices: readonly ServiceSliceRow[],
  node: NodeContext,
): ServiceFrontends {
  const ordered = [...slices].sort((a, b) => (a.key < b.key ? -1 : 1));
  const problems = [...service.problems, ...ordered.flatMap((slice) => slice.problems)];
  // An address that is claimed twice by one Service: as the load balancer's it may be for some clients only.
  const rows = new Map<string, FrontendRow>();
  const localReady = { 4: new Set<string>(), 6: new Set<string>() };
  const claims = (list: readonly string[], what: string) =>
    list.filter((address) => {
      const reason = node.refuseClaim(address, service);
      if (reason !== undefined) problems.push(`${what} ${address} is ignored: ${reason}`);
      return reason === undefined;
    });
  const externalIps = claims(service.externalIps, 'external IP');
  const loadBalancerIps = claims(service.loadBalancerIps, 'load balancer address');

  for (const port of service.ports) {
    const candidates = endpointsOf(service, port, ordered, node, problems);
    for (const family of families) {
      const here = candidates.filter((each) => familyOf(each.address) === family);
      const everywhere = forNewConnections(here);
      const ours = here.filter((each) => each.is.node === node.name);
      for (const each of ours) if (each.is.ready && !each.maintenance) localReady[family].add(each.address);
      const chosenHere = forNewConnections(ours);
      const lastOnes =
        chosenHere.length > 0 &&
        !chosenHere.some((each) => each.is.ready) &&
        here.some((each) => each.is.node !== node.name && each.is.ready && !each.maintenance);
      // Frontends that have the same backends share the list.
      const lists = {
        local: once(() => backendsOf(chosenHere, ours, node)),
        everywhere: once(() => backendsOf(everywhere, here, node)),
        nearby: once(() => backendsOf(byTopology(everywhere, node), here, node)),
      };
      const row = (scope: FrontendScope, address: string, number: number, kind: FrontendKind): FrontendRow => {
        const outside = kind !== 'ClusterIP';
        const onlyLocal = outside ? service.externalLocal : service.internalLocal;
        // From inside, the external policy only says that other nodes' ports are those nodes' own matter.
        const atHome = onlyLocal && (scope === 'outside' || !outside);
        return {
          key: frontendKey(scope, address, number, port.protocol),
          address,
          port: number,
          protocol: port.protocol,
          scope,
          kind,
          service: service.key,
          portName: port.name,
          algorithm: service.algorithm ?? (outside ? 'maglev' : 'random'),
          affinitySeconds: service.affinitySeconds ?? 0,
          onlyLocal,
          handsOver: (onlyLocal && scope === 'outside' && lastOnes) || undefined,
          directReturn: outside && node.directReturn.includes(port.protocol),
          sourceRanges:
            kind === 'LoadBalancer' && service.sourceRanges !== undefined
              ? service.sourceRanges.filter((cidr) => familyOf(cidr) === family)
              : undefined,
          backends: lists[atHome ? 'local' : outside ? 'everywhere' : 'nearby'](),
        };
      };
      const put = (made: FrontendRow) => rows.set(made.key, made);
      const add = (list: readonly string[], kind: FrontendKind, scopes: readonly FrontendScope[]) => {
        for (const address of list)
          if (familyOf(address) === family) for (const scope of scopes) put(row(scope, address, port.port, kind));
      };
      add(service.clusterIps, 'ClusterIP', ['inside']);
      add(externalIps, 'ExternalIP', ['inside', 'outside']);
      add(loadBalancerIps, 'LoadBalancer', ['inside', 'outside']);
      if (port.nodePort !== undefined && service.clusterIps.some((address) => familyOf(address) === family)) {
        put(row('inside', anyAddress[family], port.nodePort, 'NodePort'));
        for (const address of node.addresses)
          if (familyOf(address) === family) put(row('outside', address, port.nodePort, 'NodePort'));
      }
    }
  }
  return {
    frontends: [...rows.values()],
    problems: problems.length === 0 ? none : [...new Set(problems)],
    localReady: Math.max(localReady[4].size, localReady[6].size),
  };
}

/** The endpoints behind a port, once each, without those that the Service may not have. */
function endpointsOf(
  service: ServiceRow,
  port: ServicePort,
  slices: readonly ServiceSliceRow[],
  node: NodeContext,
  problems: string[],
): Candidate[] {
  const found = new Map<string, Candidate>();
  let usualPort: number | undefined;
  for (const slice of slices) {
    for (const target of slice.ports) {
      if (target.name !== port.name || target.protocol !== port.protocol) continue;
      usualPort ??= target.port;
      for (const [i, address] of slice.addresses.entries()) {
        const is = slice.facts[i]!;
        // Who may write slices may write any address into them, and any label on them.
        const owner = node.namespaceOf(address);
        if (owner !== undefined && owner !== service.namespace) {
          problems.push(`endpoint ${address} of slice ${slice.key} is ignored: it is a pod of namespace ${owner}`);
          continue;
        }
        const key = target.port === usualPort ? address : `${address} ${target.port}`;
        const known = found.get(key);
        // While an endpoint moves from one slice to another it is in both: the better news counts.
        if (known === undefined || health(is) > health(known.is))
          found.set(key, { address, port: target.port, is, maintenance: node.inMaintenance(address, target.port) });
      }
    }
  }
  return [...found.values()].sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : a.port - b.port));
}

function health(endpoint: EndpointFacts): number {
  return (endpoint.ready ? 4 : 0) + (endpoint.serving ? 2 : 0) + (endpoint.terminating ? 0 : 1);
}

/** The ready ones; when there are none, those that still serve while they end. Those in maintenance are neither. */
function forNewConnections(endpoints: readonly Candidate[]): Candidate[] {
  const ready = endpoints.filter((each) => each.is.ready);
  const chosen = ready.length > 0 ? ready : endpoints.filter((each) => each.is.serving && each.is.terminating);
  return chosen.filter((each) => !each.maintenance);
}

/** Those that the hints give to this node or zone, when every endpoint has a hint and any is meant for it. */
function byTopology(endpoints: readonly Candidate[], node: NodeContext): Candidate[] {
  const pick = (hint: (each: EndpointFacts) => readonly string[] | undefined, mine: string | undefined) => {
    if (mine === undefined || !endpoints.every((each) => (hint(each.is)?.length ?? 0) > 0)) return [];
    return endpoints.filter((each) => hint(each.is)!.includes(mine));
  };
  const sameNode = pick((each) => each.forNodes, node.name);
  if (sameNode.length > 0) return sameNode;
  const sameZone = pick((each) => each.forZones, node.zone);
  return sameZone.length > 0 ? sameZone : [...endpoints];
}

/** All that are known: who gets no new connections keeps those it has for as long as it is there. */
function backendsOf(chosen: readonly Candidate[], all: readonly Candidate[], node: NodeContext): FrontendBackend[] {
  const serving = new Set(chosen);
  return all.map((each) => {
    const { node: nodeName, weight } = each.is;
    const state = serving.has(each) ? 'serving' : idleState(each);
    const where = node.addresses.has(each.address) ? 'node' : nodeName === node.name ? 'pod' : 'remote';
    const role = backendRole(`${state} ${where} ${weight} ${nodeName}`, () => ({ state, where, nodeName, weight }));
    return { address: each.address, port: each.port, role };
  });
}

function idleState(endpoint: Candidate): BackendState {
  if (endpoint.maintenance) return 'maintenance';
  if (endpoint.is.ready) return 'standby';
  return endpoint.is.terminating ? 'draining' : 'unready';
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}
