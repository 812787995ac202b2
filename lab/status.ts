// What a lab consists of right now, for people and for programs that look into it from outside.
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { hostAddresses, hostNumbers, httpsUrl, type IpFamily, worldExtraAddresses } from './addresses.ts';
import { agentProcess, agentSockets } from './agents.ts';
import { type Api, type ApiObject, connectApi } from './api.ts';
import { controlPlaneParts } from './control-plane.ts';
import { nodeAddresses, nodeInit } from './node.ts';
import { isAlive, recall } from './process-identity.ts';
import { type RelayAccess, relayAccess } from './relay.ts';
import { contextFile, type LabRecord, labDir, type NodeSpec, netnsFile, paths, readRecord } from './state.ts';
import { isReady } from './up.ts';

/** A process of the lab: its pid as the machine sees it, null while it does not run. */
export interface ProcessStatus {
  readonly name: string;
  readonly pid: number | null;
  readonly log: string;
}

/** A node as seen from outside: every pid and path is the machine's, not the node's. */
export interface NodeStatus {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly kubelet: boolean;
  /** Whether the API server calls the node Ready; null when it did not say. */
  readonly ready: boolean | null;
  /** A process in all of the node's namespaces; null while the node does not run. */
  readonly initPid: number | null;
  readonly agentPid: number | null;
  readonly netns: string;
  readonly sockets: { readonly agent: string; readonly hubble: string };
  /** The node's /run/weir, /var/lib/weir, /etc/cni/net.d and /opt/cni/bin. */
  readonly folders: {
    readonly run: string;
    readonly state: string;
    readonly cniConfig: string;
    readonly cniPlugins: string;
  };
  readonly logs: {
    readonly node: string;
    readonly agent: string;
    readonly kubelet: string;
    readonly containerd: string;
  };
}

/** A lab as seen from outside. */
export interface LabStatus {
  readonly name: string;
  readonly phase: 'starting' | 'up' | 'dead';
  readonly ipFamily: IpFamily;
  readonly createdAt: string;
  readonly folder: string;
  readonly kubeconfig: string;
  readonly server: string;
  readonly context: string;
  readonly controlPlane: {
    readonly netns: string;
    readonly addresses: readonly string[];
    readonly processes: readonly ProcessStatus[];
  };
  readonly operator: ProcessStatus;
  readonly relay: ProcessStatus & RelayAccess;
  readonly world: { readonly netns: string; readonly addresses: readonly string[] };
  readonly nodes: readonly NodeStatus[];
}

function processStatus(lab: string, name: string): ProcessStatus {
  const found = recall(paths.process(lab, name));
  return { name, pid: found !== undefined && isAlive(found) ? found.pid : null, log: paths.log(lab, name) };
}

/** Describes a lab. The API server is asked who is Ready, for two seconds at most. */
export async function labStatus(lab: string): Promise<LabStatus> {
  const record = readRecord(lab);
  if (record === undefined) throw new WeirError('LAB_NOT_FOUND', `there is no lab "${lab}"`);
  const processes = controlPlaneParts.map((name) => processStatus(lab, name));
  const complete = processes.every((each) => each.pid !== null);
  const apiNodes = complete ? await listNodes(record) : undefined;
  const { ipFamily } = record;
  const extra = [
    ...(ipFamily === 'v6' ? [] : worldExtraAddresses.v4),
    ...(ipFamily === 'v4' ? [] : worldExtraAddresses.v6),
  ];
  return {
    name: lab,
    phase: complete ? record.phase : record.phase === 'up' ? 'dead' : 'starting',
    ipFamily,
    createdAt: record.createdAt,
    folder: labDir(lab),
    kubeconfig: paths.kubeconfig(lab),
    server: httpsUrl('127.0.0.1', record.port),
    context: contextFile(lab),
    controlPlane: {
      netns: netnsFile(lab, 'cp'),
      addresses: hostAddresses(hostNumbers.controlPlane, ipFamily),
      processes,
    },
    operator: processStatus(lab, 'operator'),
    relay: { ...processStatus(lab, 'relay'), ...relayAccess(record) },
    world: { netns: netnsFile(lab, 'world'), addresses: [...hostAddresses(hostNumbers.world, ipFamily), ...extra] },
    nodes: record.nodes.map((node) => nodeStatus(record, node, apiNodes)),
  };
}

function nodeStatus(record: LabRecord, node: NodeSpec, apiNodes: readonly ApiObject[] | undefined): NodeStatus {
  const lab = record.name;
  const folder = paths.node(lab, node.name);
  const log = (part: string) => paths.log(lab, `${node.name}${part}`);
  const found = apiNodes?.find((each) => each.metadata.name === node.name);
  return {
    name: node.name,
    addresses: nodeAddresses(record, node),
    kubelet: node.kubelet,
    ready: apiNodes === undefined ? null : found !== undefined && isReady(found),
    initPid: nodeInit(lab, node.name)?.pid ?? null,
    agentPid: agentProcess(lab, node.name)?.pid ?? null,
    netns: netnsFile(lab, node.name),
    sockets: agentSockets(lab, node.name),
    folders: {
      run: paths.nodeRun(lab, node.name),
      state: join(folder, 'lib/weir'),
      cniConfig: join(folder, 'cni/net.d'),
      cniPlugins: join(folder, 'cni/bin'),
    },
    logs: { node: log(''), agent: log('-agent'), kubelet: log('-kubelet'), containerd: log('-containerd') },
  };
}

async function listNodes(record: LabRecord): Promise<ApiObject[] | undefined> {
  let api: Api | undefined;
  try {
    api = connectApi(record); // only root may read the certificates; others see the rest
    const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 2_000).unref());
    return await Promise.race([api.list('/api/v1/nodes'), late]);
  } catch {
    return undefined;
  } finally {
    api?.close();
  }
}
