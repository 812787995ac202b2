// Services of one node: follows them in the API, derives this node's frontends, writes them, and hooks the system calls.

import { join } from 'node:path';
import { addressBytes } from '../../connect/datapath/address-keys.ts';
import { natAddress } from '../../connect/ipam/nat-address.ts';
import { createHealthChecks } from '../../connect/services/health-checks.ts';
import { hostPortFrontends } from '../../connect/services/host-ports.ts';
import {
  createServiceDerivation,
  type ExtraFrontends,
  type NodeFacts,
} from '../../connect/services/service-derivation.ts';
import { createServiceTarget, type ServiceTarget } from '../../connect/services/service-target.ts';
import type { SocketHooks } from '../../connect/services/socket-hooks.ts';
import { errorText } from '../../core/errors.ts';
import { createReconciler, type Reconciler, type Target } from '../../core/reconciler.ts';
import type {
  AddressRow,
  EndpointRow,
  FrontendRow,
  NodeRow,
  PodRow,
  PortProtocol,
  ServiceRow,
  ServiceSliceRow,
} from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { arrayWindows } from '../../kernel/array-windows.ts';
import { findCgroup2 } from '../../kernel/cgroups.ts';
import { datapathMaps, LbConfigFlags } from '../../kernel/datapath.gen.ts';
import type { KubeClient } from '../../kube/client.ts';
import { kubernetesResources } from '../../kube/resource.ts';
import type { WatchState } from '../../kube/watch.ts';
import type { Log } from '../log.ts';
import { watchGoneSockets } from './gone-sockets.ts';
import { checkMaintenance, createMaintenance, type Maintenance } from './maintenance.ts';
import { createStateFile } from './node-state.ts';
import { createServiceEvents } from './service-events.ts';
import type { ServiceSources } from './service-sources.ts';
import type { AgentSettings } from './settings.ts';

/** Services as the agent runs them. */
export interface AgentServices {
  readonly services: ReadTable<ServiceRow>;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly frontends: ReadTable<FrontendRow>;
  /** What is ignored of a Service or cannot be done, "namespace/name". */
  readonly problemsOf: (service: string) => readonly string[];
  readonly target: ServiceTarget;
  readonly maintenance: Maintenance;
  readonly reconciler: Reconciler;
  readonly hooks: SocketHooks;
  readonly tables: readonly ReadTable<unknown>[];
  watches(): WatchState[];
  stop(): Promise<void>;
}

/** What services need of the rest of the agent. */
export interface ServiceInputs {
  readonly client: KubeClient;
  readonly settings: AgentSettings;
  readonly log: Log;
  readonly hooks: SocketHooks;
  readonly sources: ServiceSources;
  readonly pods: ReadTable<PodRow>;
  readonly endpoints: ReadTable<EndpointRow, 'container' | 'pod'>;
  readonly nodes: ReadTable<NodeRow>;
  readonly addresses: ReadTable<AddressRow>;
  readonly hostAddresses: ReadTable<{ address: string }>;
}

/** Starts following and writing. */
export function startServices(inputs: ServiceInputs): AgentServices {
  const { client, settings, log, hooks, endpoints, pods } = inputs;
  const slots = arrayWindows(hooks.map('lb_slots'));
  const backends = arrayWindows(hooks.map('backends'));
  const backendCounts = arrayWindows(hooks.map('backend_counts'));
  const target = createServiceTarget({
    services: hooks.map('services'),
    sourceRanges: hooks.map('source_ranges'),
    directBackends: hooks.map('direct_backends'),
    slots,
    backends,
    backendCounts,
  });

  const { services, slices, ownNode } = inputs.sources;
  const hostPorts = createTable<ExtraFrontends>({ name: 'host-ports', key: (row) => row.owner });
  const frontends = createTable<FrontendRow>({ name: 'frontends', key: (row) => row.key });

  const maintenance = createMaintenance(
    createStateFile(join(settings.stateDir, 'maintenance.json'), checkMaintenance, (file, reason) =>
      log.error('STATE_FILE_INVALID: set aside', { file, reason }),
    ),
    () => schedule(true),
  );
  const nodeFacts = (): NodeFacts => {
    const own = new Set([...inputs.hostAddresses.rows()].map((row) => row.address));
    const nodeAddresses = new Map<string, string>();
    for (const node of inputs.nodes.rows()) for (const address of node.addresses) nodeAddresses.set(address, node.name);
    return {
      name: settings.nodeName,
      zone: ownNode.get(settings.nodeName)?.zone,
      addresses: own,
      directReturn: directReturn(settings),
      inMaintenance: maintenance.has,
      nodeOf: (address) => nodeAddresses.get(address) ?? (own.has(address) ? settings.nodeName : undefined),
    };
  };
  const derivation = createServiceDerivation({
    services,
    slices,
    extras: hostPorts,
    addresses: inputs.addresses,
    to: frontends,
    node: nodeFacts,
  });

  function updateHostPorts(): void {
    if (!pods.initialized) return;
    const own = [...inputs.hostAddresses.rows()].map((row) => row.address);
    const rows: ExtraFrontends[] = [];
    for (const pod of pods.rows()) {
      if (pod.hostPorts === undefined) continue;
      const endpoint = endpoints.by('pod', pod.key)[0];
      if (endpoint !== undefined) rows.push(hostPortFrontends(pod, endpoint, own));
    }
    hostPorts.replaceAll(rows);
    hostPorts.markInitialized();
  }

  /** Behind which addresses the node translates, and how. */
  function updateConfig(): void {
    const own = inputs.nodes.get(settings.nodeName);
    // Until the node is heard of, what an earlier run wrote holds: connections go on behind the same address.
    if (own === undefined && !inputs.nodes.initialized) return;
    const first = (list: readonly string[] | undefined, family: 4 | 6) => {
      const address = list?.find((each) => each.includes(':') === (family === 6));
      return address === undefined ? new Uint8Array(16) : addressBytes(address);
    };
    const nat = own?.podCidrs.flatMap((cidr) => natAddress(cidr) ?? []);
    const value = datapathMaps.lb_config.value.encode({
      nat4: first(nat, 4),
      nat6: first(nat, 6),
      node4: first(own?.addresses, 4),
      node6: first(own?.addresses, 6),
      flags:
        (settings.dsrDispatch === 'tunnel' ? LbConfigFlags.LB_DSR_TUNNEL : 0) |
        (settings.policyDenyResponse === 'icmp' ? LbConfigFlags.LB_DENY_ICMP : 0),
    });
    hooks.map('lb_config').update(datapathMaps.lb_config.key.encode(0), value);
  }

  const unserved = new Map<number, string>();
  const healthChecks = createHealthChecks((port, error) => {
    if (unserved.get(port) !== error.message)
      log.error('a health check port is not served', { port, error: error.message });
    unserved.set(port, error.message);
    for (const { key, healthCheckNodePort } of services.by('health-check', 'yes'))
      if (healthCheckNodePort === port) tellOf(key);
  });
  /** What is wrong with a Service, on this node too. */
  function problemsOf(key: string): readonly string[] {
    const port = services.get(key)?.healthCheckNodePort;
    const problems = derivation.status(key)?.problems ?? [];
    const failure = port !== undefined && !healthChecks.ports().includes(port) ? unserved.get(port) : undefined;
    if (failure === undefined) return problems;
    return [...problems, `health check port ${port} is not served on node ${settings.nodeName}: ${failure}`];
  }
  function updateHealthChecks(): void {
    if (!services.initialized || !slices.initialized) return;
    healthChecks.update(
      services.by('health-check', 'yes').map(({ key, healthCheckNodePort }) => ({
        service: key,
        port: healthCheckNodePort!,
        localReady: derivation.status(key)?.localReady ?? 0,
      })),
    );
  }

  const events = createServiceEvents({
    create: (event) => client.create(kubernetesResources.events, event),
    onError: (error) => log.warn('could not write an event', { error: errorText(error) }),
  });
  function tellOf(key: string): void {
    const service = services.get(key);
    if (service === undefined) events.forget(key);
    else events.tell(service, problemsOf(key));
  }
  const tellProblems = () => {
    for (const key of derivation.takeChanged()) tellOf(key);
  };

  let scheduled = false;
  let all = false;
  const run = () => {
    scheduled = false;
    try {
      updateHostPorts();
      if (all) updateConfig();
      if (all) derivation.nodeChanged();
      else derivation.run();
      all = false;
      updateHealthChecks();
      tellProblems();
    } catch (error) {
      log.error('services could not be derived', { error: errorText(error), stack: (error as Error).stack });
    }
  };
  const schedule = (everything: boolean) => {
    all ||= everything;
    if (scheduled) return;
    scheduled = true;
    setImmediate(run);
  };
  for (const table of [services, slices, pods, endpoints, inputs.addresses] as ReadTable<unknown>[])
    table.subscribe(() => schedule(false));
  for (const table of [inputs.hostAddresses, inputs.nodes, ownNode] as ReadTable<unknown>[])
    table.subscribe(() => schedule(true));

  const goneSockets = watchGoneSockets({
    take: target.takeGone,
    peers: hooks.map('socket_peers'),
    endpoints,
    addresses: inputs.addresses,
    log,
  });
  /** After each write backends may have gone. */
  const watched: Target<FrontendRow> = {
    update(rows) {
      goneSockets.look();
      return target.update(rows);
    },
    delete(rows) {
      goneSockets.look();
      return target.delete(rows);
    },
    prune(rows) {
      goneSockets.look();
      return target.prune?.(rows);
    },
  };
  const reconciler = createReconciler<FrontendRow>({ name: 'frontends', table: frontends, target: watched });
  const cgroup = findCgroup2();
  if (cgroup === undefined)
    log.error('no cgroup v2 is mounted: services are translated per packet only', {
      hint: 'mount -t cgroup2 none /sys/fs/cgroup',
    });
  else hooks.attach(cgroup);
  schedule(true);

  return {
    services,
    slices,
    frontends,
    problemsOf,
    target,
    maintenance,
    reconciler,
    hooks,
    tables: [services, slices, hostPorts, frontends] as ReadTable<unknown>[],
    watches: inputs.sources.watches,
    async stop() {
      inputs.sources.stop();
      events.stop();
      goneSockets.stop();
      await healthChecks.stop();
      await reconciler.stop();
      slots.close();
      backends.close();
      backendCounts.close();
      hooks.close();
    },
  };
}

function directReturn(settings: AgentSettings): readonly PortProtocol[] {
  if (settings.lbMode === 'dsr') return ['TCP', 'UDP', 'SCTP'];
  return settings.lbMode === 'hybrid' ? ['TCP'] : [];
}
