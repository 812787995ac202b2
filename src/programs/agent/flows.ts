// The agent's flows: hands the datapath's events and the agent's tables to the flow server.
import { join } from 'node:path';
import { errorText } from '../../core/errors.ts';
import { u32Codec } from '../../kernel/codec.ts';
import {
  createFlowObserver,
  type FlowCounters,
  type FlowObserver,
  type FlowStatus,
} from '../../observe/flows/flow-observer.ts';
import { createFlowSockets } from '../../observe/flows/flow-sockets.ts';
import { version } from '../cli/version.ts';
import type { Log } from '../log.ts';
import type { Agent } from './agent.ts';
import { type FlowNetworkStatus, flowNetworkStatus, planFlowListener } from './flow-listener.ts';
import { createFlowServices } from './flow-services.ts';
import type { AgentMetrics } from './metrics.ts';
import { createStateFile } from './node-state.ts';
import type { AgentProcesses } from './processes.ts';
import { socketNames } from './settings.ts';

/** The agent's flows and their server. */
export interface AgentFlows {
  status(): FlowStatus & { readonly network: FlowNetworkStatus };
  readonly talks: FlowObserver['talks'];
  readonly observer: Pick<FlowObserver, 'ring' | 'losses'>;
  close(): Promise<void>;
}

/** Events wait in the kernel's ring for so long for the rules behind their verdicts; then they are shown without. */
const rulesWaitMs = 10_000;

/** Starts reading events and serves flows on the agent's socket. */
export async function startFlows(
  agent: Agent,
  processes: AgentProcesses | undefined,
  metrics: AgentMetrics,
  log: Log,
): Promise<AgentFlows> {
  const { settings, datapath, sources } = agent;
  const counters = datapath.map('counters');
  const file = createStateFile(join(settings.stateDir, 'flow-counters.json'), checkCounters, (path, reason) =>
    log.error('STATE_FILE_INVALID: set aside', { file: path, reason }),
  );
  const services = createFlowServices({
    target: agent.services.target,
    frontends: agent.services.frontends,
    sockets: agent.services.hooks.map('socket_services'),
  });
  const observer = createFlowObserver({
    nodeName: settings.nodeName,
    version: `weir v${version}`,
    run: metrics.run,
    deviceName: agent.deviceName,
    onRow: metrics.onRow,
    startedAtMs: agent.startedAtMs,
    capacity: settings.flowCapacity,
    events: datapath.ring,
    counter: (index) =>
      (counters.lookupPerCpu(u32Codec.encode(index)) ?? []).reduce(
        (sum, each) => sum + Number(new DataView(each.buffer, each.byteOffset).getBigUint64(0, true)),
        0,
      ),
    cookie: agent.compiler.cookie,
    addresses: agent.addresses,
    identities: sources.identities,
    services,
    ...(processes && { processes: { find: processes.table.find, read: processes.read } }),
    ...(processes && { rpcServices: [processes.service] }),
    sockets: createFlowSockets(agent.services.hooks.map('socket_owners')),
    endpoints: agent.endpoints,
    policies: agent.policies.objects,
    nodes: sources.nodes,
    countersBefore: file.load(),
    onCounters: file.save,
    onError: (error) => log.error('reading events failed', { error: errorText(error), stack: (error as Error).stack }),
    ready: agent.sync.whenSynced(rulesWaitMs),
  });
  const socket = join(settings.runDir, socketNames.flows);
  // An agent that cannot show flows still forwards and serves the container runtime.
  const plan = planFlowListener(settings);
  if (plan.mistaken) log.error('flows are not served on the network', { reason: plan.reason });
  let listenError: string | undefined;
  const refused = (error: unknown) => {
    listenError = errorText(error);
    log.error('flows cannot be served on the network', { address: settings.flowListen, error: listenError });
  };
  const server = await observer.serve(`unix:${socket}`, plan.listener, refused).catch((error) => {
    log.error('flows cannot be served', { socket, error: errorText(error) });
    return undefined;
  });
  if (server !== undefined)
    log.info('flows are served', { socket, network: server.network, capacity: settings.flowCapacity });
  if (server?.network !== undefined && plan.files === undefined)
    log.warn('flows are served in the clear to whoever reaches the port', { address: server.network });
  return {
    status: () => ({ ...observer.status(), network: flowNetworkStatus(plan, server?.network, listenError) }),
    talks: observer.talks,
    observer,
    async close() {
      plan.files?.close();
      await server?.close();
      observer.close();
      services.close();
    },
  };
}

function checkCounters(value: unknown): FlowCounters {
  const { lost, heldBack } = value as Partial<FlowCounters>;
  if (typeof lost !== 'number' || typeof heldBack !== 'number') throw new Error('lost and heldBack must be numbers');
  return { lost, heldBack };
}
