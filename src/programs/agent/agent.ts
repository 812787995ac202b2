// The agent of one node: wires sources, derivations, the datapath, the CNI socket and the local API together.
import { join } from 'node:path';
import { createAddressDerivation } from '../../connect/addresses/derive-addresses.ts';
import { createDatapathWriter, type DatapathWriter } from '../../connect/datapath/datapath-writer.ts';
import { kernelEndpoint } from '../../connect/datapath/kernel-endpoint.ts';
import type { Datapath } from '../../connect/datapath/load-datapath.ts';
import { classesInKernel, numbersInUse } from '../../connect/datapath/numbers-in-use.ts';
import { writePodNetworks } from '../../connect/datapath/pod-networks.ts';
import { CniError, type CniRequest, type CniResult, cniCodes } from '../../connect/endpoints/cni-protocol.ts';
import { containerKey, createEndpointManager } from '../../connect/endpoints/endpoint-manager.ts';
import { createEndpointStore } from '../../connect/endpoints/endpoint-store.ts';
import { gateways } from '../../connect/endpoints/link-addresses.ts';
import { createPodInterfaces } from '../../connect/endpoints/pod-interface.ts';
import { type RouteRow, routesFor } from '../../connect/routing/derive-routes.ts';
import { createRouteTarget } from '../../connect/routing/route-target.ts';
import { createXdpBalancer } from '../../connect/services/xdp-balancer.ts';
import { createSliceDerivation, type SliceRow } from '../../connect/slices/own-slices.ts';
import { createSliceTarget } from '../../connect/slices/slice-target.ts';
import { errorText } from '../../core/errors.ts';
import { reservedIdentities } from '../../core/identity.ts';
import { createReconciler, type Reconciler } from '../../core/reconciler.ts';
import type { AddressRow, EndpointRow, PrefixRow } from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { createDeviceNames } from '../../kernel/device-names.ts';
import { createKubeClient, type KubeClient } from '../../kube/client.ts';
import { findAccess } from '../../kube/kubeconfig.ts';
import type { WatchState } from '../../kube/watch.ts';
import { createPolicyCompiler, type PolicyCompiler, type PolicyCompilerOptions } from '../../secure/policy/compile.ts';
import { rowsOfNamespace } from '../../secure/policy/policy-limits.ts';
import type { Log } from '../log.ts';
import { type Announcing, startAnnouncing } from './announce.ts';
import { installConfig, installPlugin } from './cni-install.ts';
import type { AgentExports } from './export.ts';
import { guardedBy } from './guarded.ts';
import { createKernelSync, type KernelSync } from './kernel-sync.ts';
import { createNodeNetwork } from './node-network.ts';
import { followNodePolicies } from './node-policies.ts';
import { checkLeases, createNodePools, type NodePools } from './node-pools.ts';
import { createStateFile } from './node-state.ts';
import { doPendingDeletes } from './pending-deletes.ts';
import { createPolicyFence } from './policy-fence.ts';
import { reportPolicies } from './policy-report.ts';
import { policyRoom } from './policy-room.ts';
import { followPolicies, type PolicySources, policyKinds } from './policy-sources.ts';
import { followServices } from './service-sources.ts';
import { type AgentServices, startServices } from './services.ts';
import type { AgentSettings } from './settings.ts';
import { type AgentSources, followSources } from './sources.ts';
import type { TakenNode } from './take-node.ts';
import { createTidying } from './tidying.ts';

/** A running agent, as its API and its tests see it. */
export interface Agent {
  readonly settings: AgentSettings;
  readonly startedAtMs: number;
  readonly client: KubeClient;
  readonly sources: AgentSources;
  readonly policies: PolicySources;
  readonly prefixes: ReadTable<PrefixRow>;
  readonly endpoints: ReadTable<EndpointRow, 'container' | 'pod'>;
  readonly addresses: ReadTable<AddressRow>;
  readonly tables: readonly ReadTable<unknown>[];
  readonly reconcilers: readonly Reconciler[];
  readonly compiler: PolicyCompiler;
  readonly datapath: Datapath;
  /** The name of a device of this node; empty when it is gone. */
  readonly deviceName: (ifindex: number) => string;
  readonly services: AgentServices;
  /** Set while flows and processes are exported. */
  exports: AgentExports | undefined;
  /** Undefined when this node is not to announce. */
  readonly announcing: Announcing | undefined;
  readonly writerStatus: () => ReturnType<ReturnType<typeof createDatapathWriter>['status']>;
  policyRows(): ReturnType<DatapathWriter['policyStatus']>;
  readonly sync: KernelSync;
  readonly pools: NodePools;
  readonly handleCni: (request: CniRequest) => Promise<CniResult | undefined>;
  stop(): Promise<void>;
}

const sweepIntervalMs = 10_000;
const retryIntervalMs = 1_000;
const pendingIntervalMs = 5_000;
const tidyIntervalMs = 2_000;
/** Requests that come while the agent is still reading its sources wait for so long. */
const syncWaitMs = 10_000;
/** How long ADD waits for the API server to have the pod's slice. */
const publishWaitMs = 500;
/** How long ADD waits for policies that were there before the pod: the runtime tries again after it. */
const policyWaitMs = 5_000;
const roomIntervalMs = 10_000;

/** Starts an agent. Resolves when the node's pods have the current programs; sources may still be on their way. */
export async function startAgent(settings: AgentSettings, node: TakenNode, log: Log): Promise<Agent> {
  const { startedAtMs, netlink, mtu, devices } = node;
  const endpoints = createTable<EndpointRow, 'container' | 'pod'>({
    name: 'endpoints',
    key: (row) => row.id,
    indexes: {
      container: (row) => containerKey(row.containerId, row.interfaceName),
      pod: (row) => `${row.namespace}/${row.pod}`,
    },
  });
  const hostAddresses = createTable<{ address: string }>({ name: 'host-addresses', key: (row) => row.address });
  /** With those that are good on one network only: what is sent to them is the node's as well. */
  const ownAddresses = createTable<{ address: string }>({ name: 'own-addresses', key: (row) => row.address });
  const prefixes = createTable<PrefixRow>({ name: 'prefixes', key: (row) => row.cidr });
  const addresses = createTable<AddressRow>({ name: 'addresses', key: (row) => row.address });
  const routes = createTable<RouteRow>({ name: 'routes', key: (row) => row.dst });
  const slices = createTable<SliceRow>({ name: 'own-slices', key: (row) => row.name });

  const access = findAccess(settings.kubeconfig);
  const client = createKubeClient(access);
  const onState = (state: WatchState) => {
    if (state.error !== undefined)
      log.warn('the API server does not answer: forwarding goes on with what is known', {
        resource: state.resource,
        error: state.error,
      });
    else if (state.connected) log.debug('following', { resource: state.resource });
  };
  const writeAgain = (name: 'routes' | 'slices') => reconcilers.find((each) => each.name === name)?.writeAgain();
  const sources = followSources({
    client,
    node: settings.nodeName,
    onState,
    // The operator does when a node goes; the node may be back under its name.
    onOwnSliceDeleted(name) {
      if (slices.has(name)) writeAgain('slices');
    },
    onRefused: ({ node, namespace, pod, ipv4, ipv6 }) =>
      log.warn('a pod of another node is ignored: its address is outside the blocks of the node that tells of it', {
        node,
        pod: `${namespace}/${pod}`,
        addresses: [ipv4, ipv6],
      }),
  });
  const healthCheckPorts = createTable<{ port: number }>({ name: 'health-check-ports', key: (row) => row.port });
  healthCheckPorts.markInitialized();
  const badPolicies = new Map<string, string>();
  const serviceSources = followServices(client, settings.nodeName, onState);
  const policies = followPolicies({
    client,
    nodeName: settings.nodeName,
    clusterStaged: settings.policyEnforcement === 'staged',
    ...(settings.hostFirewall !== 'off' && {
      essential: { apiServers: [new URL(access.server).hostname.replace(/^\[|\]$/g, '')], healthCheckPorts },
    }),
    ...(settings.ignoredLabels && { ignoredLabels: settings.ignoredLabels }),
    namespaces: sources.namespaces,
    nodes: sources.nodes,
    slices: serviceSources.slices,
    onState,
    onProblems(policy, problems) {
      const text = problems.join('; ');
      if (problems.length > 0 && badPolicies.get(policy) !== text)
        log.warn('POLICY_INVALID: a policy isolates its pods and allows nothing', { policy, problems });
      if (problems.length > 0) badPolicies.set(policy, text);
      else badPolicies.delete(policy);
    },
  });
  const policyFence = createPolicyFence({
    client,
    resources: policyKinds,
    seen: policies.seen,
    namespaces: sources.namespaces,
    onError: (error) => log.warn('the API server does not say which policies there are', { error: errorText(error) }),
  });
  const { identities } = sources;
  const reconcilers: Reconciler[] = [];

  // The API server has been asked: its answers come while the kernel verifies.
  const { datapath, hooks } = await node.loading;
  for (const { map, why } of datapath.replaced)
    log.warn('a map of an earlier version was replaced by an empty one', { map, why });
  datapath.attachNode(devices.netIfindex);
  const xdp = createXdpBalancer({ ...node.options, choice: settings.xdp });

  const onCorrupt = (file: string, reason: string) => log.error('STATE_FILE_INVALID: set aside', { file, reason });
  const numbers = createStateFile(
    join(settings.stateDir, 'numbers.json'),
    (value) => value as ReturnType<PolicyCompiler['export']>,
    onCorrupt,
  );
  const kernel = { above: numbersInUse(datapath.maps), inKernel: () => classesInKernel(datapath.maps) };
  const compiler = createCompiler(numbers.load(), kernel, onCorrupt, settings.stateDir);
  const writer = createDatapathWriter(datapath.maps, {
    peers: rowsOfNamespace(datapath.maps.policyPeer.maxEntries),
    ports: rowsOfNamespace(datapath.maps.policyPorts.maxEntries),
  });

  const addressDerivation = createAddressDerivation(
    {
      endpoints,
      remoteEndpoints: sources.remoteEndpoints,
      nodes: sources.nodes,
      hostAddresses: ownAddresses,
      apiServers: sources.apiServers,
    },
    addresses,
    settings.nodeName,
  );
  const sliceDerivation = createSliceDerivation(endpoints, slices, settings.nodeName);
  let numbersDirty = false;
  const sync = createKernelSync({
    tables: { endpoints, identities, namespaces: sources.namespaces, policies: policies.policies, prefixes, addresses },
    addressDerivation,
    compiler,
    writer,
    onApplied() {
      numbersDirty = true;
    },
    onError: (error) => log.error('a pass failed', { error: errorText(error), stack: (error as Error).stack }),
  });

  const interfaces = createPodInterfaces();
  const manager = createEndpointManager({
    endpoints,
    pods: sources.pods,
    identities: sources.identities,
    interfaces,
    store: createEndpointStore(join(settings.stateDir, 'endpoints')),
    pools: () => pools.pools(),
    attach: datapath.attachNewPod,
    detach: (ifindex) => datapath.detachPod(ifindex),
    kernelEndpoint: (ifindex) => kernelEndpoint(datapath.maps.endpoints, ifindex),
    settle: () => {
      sliceDerivation.run();
      policies.flush();
      sync.settle();
    },
    published: async () => {
      const written = reconcilers.find((each) => each.name === 'slices');
      // Others may learn of the pod late: that is no reason to keep it waiting for long.
      await written?.waitFor(slices.revision, AbortSignal.timeout(publishWaitMs)).catch(() => {});
    },
    policiesReached: (namespace) => policyFence.reached(namespace, policyWaitMs),
    mtu: () => mtu,
    onError: (message, error) => log.warn(message, { error: errorText(error) }),
    ignoredLabels: settings.ignoredLabels,
  });

  const restored = manager.restore();
  for (const { file, reason } of restored.setAside) onCorrupt(file, reason);
  for (const { namespace, pod } of restored.rebuilt)
    log.warn('the file of a pod was lost: it was made again from its device', { pod: `${namespace}/${pod}` });
  for (const { device, why } of restored.unknown)
    log.error('the file of a pod was lost and cannot be made again: the pod has no network until it is made anew', {
      device,
      why,
    });
  for (const row of restored.gone)
    log.info('a pod went while the agent was away', { pod: `${row.namespace}/${row.pod}` });
  // Only now: the node's block may be known already, and pods that are there have their addresses of it.
  const stopNaming = writePodNetworks({
    endpoints,
    map: hooks.map('netns_pods'),
    onError: (message, error) => log.warn(message, { error: errorText(error) }),
  });
  const pools = createNodePools({
    thisNode: settings.nodeName,
    nodes: sources.nodes,
    endpoints,
    file: createStateFile(join(settings.stateDir, 'resting-addresses.json'), checkLeases, onCorrupt),
    log,
  });
  // Every pod that is there gets the current program before anything else happens.
  for (const row of endpoints.rows()) datapath.attachPod(row.ifindex);
  datapath.attachments.prune();

  const nodePolicies = followNodePolicies(policies.policies, () => network.updateDevices());
  const network = createNodeNetwork({
    netlink,
    datapath,
    xdp,
    devices: settings.devices,
    hostAddresses,
    ownAddresses,
    hostFirewall: settings.hostFirewall !== 'off',
    guards: () => settings.hostFirewall === 'enforce' || (settings.hostFirewall === 'audit' && nodePolicies.any),
    writeRoutesAgain: () => writeAgain('routes'),
    onRoutesMoved: () => writer.raiseAll(),
    log,
  });
  function updateNodes(): void {
    const own = sources.nodes.get(settings.nodeName);
    const rows: PrefixRow[] = [
      { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
      { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
    ];
    // Whatever lies in a pool and has no slice yet is a pod whose identity travels: never the world.
    for (const cidr of own?.clusterPools ?? []) rows.push({ cidr, identity: reservedIdentities.unmanaged });
    for (const node of sources.nodes.rows())
      for (const cidr of node.podCidrs)
        rows.push({
          cidr,
          identity: reservedIdentities.unmanaged,
          ...(node.name === settings.nodeName ? { local: true } : {}),
        });
    prefixes.replaceAll(rows);
    routes.replaceAll(routesFor(settings.nodeName, sources.nodes.rows(), gateways));
    if (!sources.nodes.initialized) return;
    prefixes.markInitialized();
    routes.markInitialized();
    network.updateDevices();
  }
  network.updateDevices();
  network.updateHostAddresses();
  sources.nodes.subscribe(updateNodes);
  updateNodes();

  const services = startServices({
    client,
    settings,
    log,
    hooks,
    sources: serviceSources,
    pods: sources.pods,
    endpoints,
    nodes: sources.nodes,
    addresses,
    hostAddresses,
    healthCheckPorts,
  });
  reconcilers.push(services.reconciler);
  const announcing =
    settings.announce === 'none'
      ? undefined
      : startAnnouncing({
          client,
          settings,
          log,
          netlink,
          map: datapath.map('announced'),
          frontends: services.frontends,
          nodes: sources.nodes,
          hostAddresses,
          onState,
        });

  for (const table of [
    endpoints,
    identities,
    sources.namespaces,
    policies.policies,
    prefixes,
    sources.remoteEndpoints,
    sources.nodes,
    ownAddresses,
    sources.apiServers,
  ] as ReadTable<unknown>[])
    table.subscribe(sync.schedule);
  endpoints.subscribe(() => queueMicrotask(sliceDerivation.run));
  sliceDerivation.run();
  reconcilers.push(
    createReconciler<RouteRow>({
      name: 'routes',
      table: routes,
      target: createRouteTarget(netlink, () => devices.hostIfindex),
    }),
    createReconciler<SliceRow>({ name: 'slices', table: slices, target: createSliceTarget(client, settings.nodeName) }),
  );
  sync.schedule();

  const installed = installPlugin(settings.cniPlugin, settings.cniBinDir);
  if (!installed) log.warn('the CNI plugin is not built: nothing was installed', { plugin: settings.cniPlugin });
  let configured = false;
  const configureRuntime = () => {
    if (configured || !installed || !sync.synced || pools.pools().length === 0) return;
    configured = true;
    const before = installConfig(settings.cniConfDir, mtu);
    if (before.length > 0)
      log.warn('the container runtime will use another network configuration first', {
        files: before,
        folder: settings.cniConfDir,
      });
    log.info('the node is ready for pods', { sinceStartMs: Date.now() - startedAtMs });
  };

  const stopReporting = reportPolicies({
    client,
    node: settings.nodeName,
    nodes: sources.nodes,
    objects: policies.objects,
    namespaces: sources.namespaces,
    clusterStaged: settings.policyEnforcement === 'staged',
    cidrGroups: policies.cidrGroups,
    services: policies.services,
    inStep: () => sync.synced && !sync.pending,
    problem() {
      if (sync.error !== undefined) return { reason: 'Failed', message: `policy could not be compiled: ${sync.error}` };
      const message = writer.policyProblem();
      return message === undefined ? undefined : { reason: 'NoRoom', message };
    },
    log,
  });
  let toldOfRoom = 0;
  const guarded = guardedBy(log);
  const pendingFolder = join(settings.stateDir, 'cni-deletes');
  const timers = [
    setInterval(
      guarded('sweep the connections', () => datapath.sweep()),
      sweepIntervalMs,
    ),
    setInterval(
      guarded('try rows again', () => writer.retry()),
      retryIntervalMs,
    ),
    setInterval(
      guarded('look at the room for policy', () => {
        const lines = policyRoom(writer.status(), compiler, (identity) => identities.get(identity)?.labels ?? []);
        if (lines.length > toldOfRoom) for (const line of lines) log.warn(`there is little room left: ${line}`);
        toldOfRoom = lines.length;
      }),
      roomIntervalMs,
    ),
    setInterval(
      guarded('save the state', () => {
        if (!numbersDirty) return;
        numbers.save(compiler.export());
        pools.save();
        numbersDirty = false;
      }),
      retryIntervalMs,
    ),
    setInterval(() => void doPendingDeletes(pendingFolder, manager.remove, log), pendingIntervalMs),
  ];
  void doPendingDeletes(pendingFolder, manager.remove, log);
  const tidy = createTidying(
    () =>
      endpoints.revision +
      sources.remoteEndpoints.revision +
      policies.policies.revision +
      services.frontends.revision +
      services.frontends.size,
  );
  timers.push(setInterval(tidy.look, tidyIntervalMs));
  void sync.whenSynced(24 * 3_600_000).then(() => {
    tidy.now();
    log.info('the kernel is in step', { endpoints: endpoints.size, sinceStartMs: Date.now() - startedAtMs });
    configureRuntime();
    sources.nodes.subscribe(configureRuntime);
  });
  log.info('agent runs', {
    node: settings.nodeName,
    endpoints: endpoints.size,
    adoptedMaps: datapath.adopted.length,
    startMs: Date.now() - startedAtMs,
  });

  return {
    settings,
    startedAtMs,
    client,
    sources,
    deviceName: createDeviceNames(netlink),
    policies,
    endpoints,
    addresses,
    prefixes,
    tables: [
      endpoints,
      sources.pods,
      identities,
      sources.namespaces,
      policies.objects,
      policies.policies,
      policies.cidrGroups,
      policies.services,
      sources.nodes,
      sources.remoteEndpoints,
      sources.apiServers,
      hostAddresses,
      prefixes,
      addresses,
      routes,
      slices,
      ...services.tables,
    ] as ReadTable<unknown>[],
    reconcilers,
    compiler,
    datapath,
    services,
    exports: undefined,
    announcing,
    writerStatus: writer.status,
    policyRows: writer.policyStatus,
    sync,
    pools,
    async handleCni(request) {
      if (request.command === 'STATUS') {
        if (!sync.synced)
          throw new CniError(
            cniCodes.notAvailable,
            'the agent has not read the cluster state yet',
            'Is the API server reachable?',
          );
        if (pools.pools().length === 0)
          throw new CniError(
            cniCodes.notAvailable,
            'the node has no block of pod addresses yet',
            'Is the operator running?',
          );
        return undefined;
      }
      if (request.command === 'ADD' && !(await sync.whenSynced(syncWaitMs)))
        throw new CniError(
          cniCodes.tryAgain,
          'the agent has not read the cluster state yet',
          'Is the API server reachable?',
        );
      return manager.handle(request);
    },
    async stop() {
      for (const timer of timers) clearInterval(timer);
      stopNaming();
      nodePolicies.stop();
      network.close();
      await announcing?.stop();
      stopReporting();
      policies.stop();
      sources.stop();
      await services.stop();
      for (const each of reconcilers) await each.stop();
      numbers.save(compiler.export());
      pools.save();
      client.close();
      interfaces.close();
      xdp.close();
      datapath.close();
      netlink.close();
      node.lock.close();
    },
  };
}

function createCompiler(
  state: ReturnType<PolicyCompiler['export']> | undefined,
  kernel: Pick<PolicyCompilerOptions, 'above' | 'inKernel'>,
  onCorrupt: (file: string, reason: string) => void,
  stateDir: string,
): PolicyCompiler {
  try {
    return createPolicyCompiler({ state, ...kernel });
  } catch (error) {
    onCorrupt(join(stateDir, 'numbers.json'), errorText(error));
    return createPolicyCompiler(kernel);
  }
}
