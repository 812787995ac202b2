// Nodes without kubelet, and pods on them: network namespaces wired by calling the CNI plugin as a container runtime
// would. For tests and measurements that need many pods and no containers.
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { type Api, type ApiObject, ensure } from './api.ts';
import { attempt, type CommandOptions, type CommandResult } from './command.ts';
import { inNode, nodeAddresses } from './node.ts';
import { type LabRecord, type NodeSpec, paths, requireNode } from './state.ts';
import { withTools } from './toolbox.ts';
import { waitFor } from './wait.ts';

/** The taint that keeps the scheduler's pods off a node without kubelet. */
const kubeletlessTaint = 'weir.dev/kubeletless';

/** Puts a node without kubelet into the cluster, Ready. */
export async function registerNode(api: Api, record: LabRecord, node: NodeSpec): Promise<void> {
  await ensure(api, '/api/v1/nodes', {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: node.name, labels: { 'kubernetes.io/hostname': node.name, 'kubernetes.io/os': 'linux' } },
    spec: { taints: [{ key: kubeletlessTaint, effect: 'NoSchedule' }] },
  });
  const now = new Date().toISOString();
  const ready = { type: 'Ready', status: 'True', reason: 'LabNode', lastHeartbeatTime: now, lastTransitionTime: now };
  const addresses = nodeAddresses(record, node).map((address) => ({ type: 'InternalIP', address }));
  const capacity = { cpu: '1', memory: '1Gi', pods: '1000' };
  await api.patch(`/api/v1/nodes/${node.name}/status`, {
    status: {
      addresses: [...addresses, { type: 'Hostname', address: node.name }],
      conditions: [ready],
      capacity,
      allocatable: capacity,
    },
  });
}

/** What a pod on a node without kubelet is like. */
export interface PodOptions {
  readonly node: string;
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Record<string, string>;
  readonly ports?: readonly { name?: string; containerPort: number; protocol?: 'TCP' | 'UDP' | 'SCTP' }[];
}

/** A pod made by `addPod`. */
export interface LabPod {
  readonly node: string;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly containerId: string;
  /** The pod's network namespace as its node sees it. */
  readonly netns: string;
  readonly addresses: readonly string[];
  /** The plugin's answer to ADD. */
  readonly cniResult: CniResult;
}

/** What matters here of a CNI result. */
export interface CniResult {
  readonly cniVersion?: string;
  readonly ips?: readonly { address: string; gateway?: string }[];
  readonly [field: string]: unknown;
}

const podsPath = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`;

/** Creates a pod bound to a node, its network namespace, and wires it; the pod is Running when this returns. */
export async function addPod(record: LabRecord, api: Api, options: PodOptions): Promise<LabPod> {
  const namespace = options.namespace ?? 'default';
  requireNode(record, options.node);
  const created = await createPodObject(api, namespace, options);
  const containerId = randomBytes(32).toString('hex');
  const pod = {
    node: options.node,
    name: options.name,
    namespace,
    uid: String(created.metadata.uid),
    containerId,
    netns: `/run/netns/pod-${containerId.slice(0, 12)}`,
  };
  const netnsName = pod.netns.slice('/run/netns/'.length);
  const script = 'ip netns add "$0" && ip -n "$0" link set lo up';
  const made = await attempt(inNode(record.name, pod.node, ['sh', '-c', script, netnsName]));
  if (made.status !== 0) throw new WeirError('LAB_COMMAND_FAILED', `ip netns add: ${made.stderr.trim()}`);
  const cniResult = await callPlugin(record.name, 'ADD', pod);
  const addresses = (cniResult.ips ?? []).map((each) => each.address.split('/')[0] ?? '');
  const now = new Date().toISOString();
  await api.patch(`${podsPath(namespace)}/${pod.name}/status`, {
    status: {
      phase: 'Running',
      podIP: addresses[0],
      podIPs: addresses.map((ip) => ({ ip })),
      conditions: [
        { type: 'Ready', status: 'True', lastTransitionTime: now },
        { type: 'ContainersReady', status: 'True', lastTransitionTime: now },
      ],
    },
  });
  return { ...pod, addresses, cniResult };
}

async function createPodObject(api: Api, namespace: string, options: PodOptions): Promise<ApiObject> {
  const object = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: options.name, namespace, labels: options.labels ?? {} },
    spec: {
      nodeName: options.node,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image: 'none', imagePullPolicy: 'Never', ports: options.ports ?? [] }],
    },
  };
  // Until the controllers have made a new namespace's service account, its pods are refused.
  return waitFor(
    `pod ${namespace}/${options.name} to be accepted`,
    () =>
      api.create(podsPath(namespace), object).catch((error: Error) => {
        if (/serviceaccount/.test(error.message)) return undefined;
        throw new WeirError('LAB_COMMAND_FAILED', error.message);
      }),
    20_000,
  );
}

/** Unwires and deletes a pod that `addPod` made. */
export async function deletePod(record: LabRecord, api: Api, pod: LabPod): Promise<void> {
  await callPlugin(record.name, 'DEL', pod);
  await attempt(inNode(record.name, pod.node, ['ip', 'netns', 'delete', pod.netns.slice('/run/netns/'.length)]));
  await api.delete(`${podsPath(pod.namespace)}/${pod.name}`, {
    gracePeriodSeconds: 0,
    preconditions: { uid: pod.uid },
  });
}

/** Runs a command in a pod's network, and in its node otherwise; what this machine lacks comes from the toolbox. */
export async function podExec(
  record: LabRecord,
  pod: LabPod,
  argv: readonly string[],
  options?: CommandOptions,
): Promise<CommandResult> {
  return attempt(podCommand(record, pod, await withTools(argv)), options);
}

/** The command that `podExec` runs, for callers that start it themselves. */
export function podCommand(record: LabRecord, pod: LabPod, argv: readonly string[]): string[] {
  return inNode(record.name, pod.node, ['nsenter', `--net=${pod.netns}`, '--', ...argv]);
}

type CniCommand = 'ADD' | 'DEL' | 'CHECK';

/**
 * Calls the node's CNI plugins as a runtime would (CNI spec 1.1, section 2): all of the first configuration list, in
 * order for ADD and CHECK, backwards for DEL.
 */
export async function callPlugin(
  lab: string,
  command: CniCommand,
  pod: Pick<LabPod, 'node' | 'name' | 'namespace' | 'uid' | 'containerId' | 'netns'> & { cniResult?: CniResult },
): Promise<CniResult> {
  // An agent that has just started writes the configuration when it can serve.
  if (command === 'ADD') {
    const configured = async () => configurationFiles(lab, pod.node).length > 0 || undefined;
    await waitFor(`the agent of ${pod.node} to be ready for pods`, configured, 20_000);
  }
  const list = readConfigurationList(lab, pod.node);
  const names = [`K8S_POD_NAMESPACE=${pod.namespace}`, `K8S_POD_NAME=${pod.name}`, `K8S_POD_UID=${pod.uid}`];
  const env = [
    `CNI_COMMAND=${command}`,
    `CNI_CONTAINERID=${pod.containerId}`,
    `CNI_NETNS=${pod.netns}`,
    'CNI_IFNAME=eth0',
    'CNI_PATH=/opt/cni/bin',
    `CNI_ARGS=IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=${pod.containerId};${names.join(';')}`,
  ];
  let result: CniResult | undefined = pod.cniResult;
  for (const plugin of command === 'DEL' ? list.plugins.toReversed() : list.plugins) {
    const config = pluginConfiguration(list, plugin, result);
    const argv = ['env', ...env, join('/opt/cni/bin', plugin.type)];
    const done = await attempt(inNode(lab, pod.node, argv), { stdin: JSON.stringify(config), timeoutMs: 60_000 });
    if (done.status !== 0) {
      const words = done.stdout.trim() || done.stderr.trim();
      throw new WeirError('LAB_COMMAND_FAILED', `${plugin.type} ${command} of ${pod.namespace}/${pod.name}: ${words}`);
    }
    if (command === 'ADD') result = JSON.parse(done.stdout) as CniResult;
  }
  return result ?? {};
}

/** A CNI configuration list (spec 1.1, section 1). */
export interface ConfigurationList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly { readonly type: string; readonly [field: string]: unknown }[];
}

/** What one plugin of a list gets on its standard input. */
export function pluginConfiguration(
  list: ConfigurationList,
  plugin: ConfigurationList['plugins'][number],
  previous: CniResult | undefined,
): object {
  const shared = { cniVersion: list.cniVersion, name: list.name };
  return { ...plugin, ...shared, ...(previous === undefined ? {} : { prevResult: previous }) };
}

function configurationFiles(lab: string, node: string): string[] {
  const files = readdirSync(join(paths.node(lab, node), 'cni/net.d'));
  return files.filter((name) => name.endsWith('.conflist')).sort();
}

/** The list that a runtime on this node would take: the first by name. Read from outside, which costs no process. */
function readConfigurationList(lab: string, node: string): ConfigurationList {
  const [first] = configurationFiles(lab, node);
  if (first === undefined) {
    throw new WeirError('LAB_NOT_RUNNING', `${node} has no CNI configuration: its agent is not ready`);
  }
  return JSON.parse(readFileSync(join(paths.node(lab, node), 'cni/net.d', first), 'utf8')) as ConfigurationList;
}
