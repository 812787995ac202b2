// Starts a lab: builds what is missing, then network, control plane, nodes and Weir, as much at once as two cores allow.
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { hostNumbers, type IpFamily, maxNodes } from './addresses.ts';
import { agentSockets, startAgent, startOperator, waitForAgent } from './agents.ts';
import { type Api, type ApiObject, connectApi } from './api.ts';
import { removeAbandoned } from './cache.ts';
import { cgroupLayout } from './cgroups.ts';
import { ensureObjects, weirRoles } from './cluster-objects.ts';
import { controlPlaneParts, freePort, requireAlive, startApiServer, startControllers } from './control-plane.ts';
import { makeCredentials } from './credentials.ts';
import { removeLab } from './down.ts';
import { buildImageStore } from './image-store.ts';
import { buildImages } from './images.ts';
import { checkInotify } from './inotify.ts';
import { registerNode } from './kubeletless.ts';
import { withLock } from './lock.ts';
import { lastLines } from './logs.ts';
import { nameServer, waitForNameServer } from './name-server.ts';
import { makeBackbone, makeHost, networkHosts } from './network.ts';
import { nodeInit, startNode, waitForImages } from './node.ts';
import { installPrerequisites, unpackPackages } from './packages.ts';
import { routePods } from './pod-routes.ts';
import { isAlive, recall } from './process-identity.ts';
import { buildPrograms } from './programs.ts';
import { type Progress, silentProgress } from './progress.ts';
import { makeFlowCertificates, startRelay } from './relay.ts';
import {
  checkLabName,
  contextFile,
  type LabRecord,
  labDir,
  type NodeSpec,
  paths,
  readRecord,
  writeAtomically,
  writeRecord,
} from './state.ts';
import { waitFor } from './wait.ts';

/** What a lab is to be like. */
export interface UpOptions {
  readonly name?: string;
  /** Nodes with kubelet and container runtime; 3 when not given. */
  readonly nodes?: number;
  /** Further nodes with an agent only; their pods are made by `addPod`. */
  readonly kubeletless?: number;
  readonly ipFamily?: IpFamily;
  /** False leaves out Weir's agents and operator: nodes then wait for another network. */
  readonly agents?: boolean;
  /** Further options of Weir's operator, such as the size of the nodes' blocks. */
  readonly operatorOptions?: readonly string[];
  readonly agentOptions?: readonly string[];
  /** The port of 127.0.0.1 that leads to the API server; a free one when not given. */
  readonly port?: number;
  readonly progress?: Progress;
}

/** Fails early, with what to do, on machines where a lab cannot work. */
export function checkMachine(): void {
  if (process.platform !== 'linux')
    throw new WeirError('LAB_MACHINE_UNSUPPORTED', `a lab needs Linux, not ${process.platform}`);
  if (process.getuid?.() !== 0) throw new WeirError('NOT_ROOT', 'only root can start, change or end a lab');
  cgroupLayout();
}

/** Builds programs and images that are not in the cache yet; returns the folder with runc in it. */
export async function prepare(progress: Progress): Promise<string> {
  removeAbandoned();
  await installPrerequisites(progress);
  await buildPrograms(progress);
  const runc = await unpackPackages(['runc'], progress, { closure: false });
  await buildImages(progress);
  await buildImageStore(progress);
  return runc;
}

/** Starts a lab and returns when it can be used: nodes Ready, name server up, images there. */
export async function upLab(options: UpOptions = {}): Promise<LabRecord> {
  const lab = checkLabName(options.name ?? 'lab');
  const nodes = nodeSpecs(options.nodes ?? 3, options.kubeletless ?? 0);
  const progress = options.progress ?? silentProgress;
  checkMachine();
  return withLock(lab, async () => {
    if (isUp(lab))
      throw new WeirError(
        'LAB_ALREADY_UP',
        `lab "${lab}" is up already`,
        `Use it, or end it first: weir lab down --name ${lab}`,
      );
    if (readRecord(lab) !== undefined || networkHosts(lab).length > 0) {
      await progress.phase('removed what an earlier lab of this name had left', () => removeLab(lab));
    }
    checkInotify(nodes.filter((node) => node.kubelet).length);
    const runcFolder = await prepare(progress);
    const record: LabRecord = {
      name: lab,
      phase: 'starting',
      ipFamily: options.ipFamily ?? 'dual',
      nodes,
      agents: options.agents ?? true,
      operatorOptions: options.operatorOptions ?? [],
      agentOptions: options.agentOptions ?? [],
      port: await choosePort(options.port),
      createdAt: new Date().toISOString(),
    };
    return start(record, runcFolder, progress);
  });
}

/** The nodes that are asked for: first those with kubelet, then those without. */
export function nodeSpecs(withKubelet: number, kubeletless: number): NodeSpec[] {
  for (const count of [withKubelet, kubeletless]) {
    if (!Number.isInteger(count) || count < 0) {
      throw new WeirError('LAB_ARGUMENT_INVALID', 'the number of nodes is not a whole number from 0');
    }
  }
  const total = withKubelet + kubeletless;
  if (total < 1 || total > maxNodes) {
    throw new WeirError('LAB_ARGUMENT_INVALID', `a lab has 1 to ${maxNodes} nodes, not ${total}`);
  }
  return Array.from({ length: total }, (_, index) => ({
    name: `node${index + 1}`,
    ordinal: index + 1,
    kubelet: index < withKubelet,
  }));
}

async function choosePort(asked: number | undefined): Promise<number> {
  const port = await freePort(asked);
  if (asked !== undefined && port !== asked) {
    throw new WeirError(
      'LAB_ARGUMENT_INVALID',
      `port ${asked} of 127.0.0.1 is in use`,
      `Choose another; ${port} is free.`,
    );
  }
  return port;
}

/** True when a lab was started to the end and its API server still runs. */
function isUp(lab: string): boolean {
  return readRecord(lab)?.phase === 'up' && isAlive(recall(paths.process(lab, 'kube-apiserver')));
}

async function start(record: LabRecord, runcFolder: string, progress: Progress): Promise<LabRecord> {
  const lab = record.name;
  const begin = performance.now();
  await progress.phase('network and certificates', async () => {
    for (const each of [paths.logs(lab), paths.processes(lab)]) mkdirSync(each, { recursive: true });
    writeRecord(record);
    makeCredentials(record);
    if (record.agents) await makeFlowCertificates(record);
    await makeBackbone(lab, record.ipFamily);
    await makeHost(lab, 'world', hostNumbers.world, record.ipFamily);
  });
  await progress.phase(`API server; namespaces of ${record.nodes.length} nodes`, async () => {
    await Promise.all([startApiServer(record), ...record.nodes.map((node) => startNode(record, node, runcFolder))]);
    writeFileSync(join(labDir(lab), 'api-ready'), '');
  });
  const api = connectApi(record);
  try {
    startControllers(record);
    await ensureObjects(api, weirRoles());
    if (record.agents) {
      startOperator(lab);
      startRelay(lab);
      await Promise.all(record.nodes.map((node) => startAgent(lab, node.name)));
    }
    for (const node of record.nodes.filter((each) => !each.kubelet)) await registerNode(api, record, node);
    await progress.phase('nodes registered', () => waitForNodes(api, record, () => true));
    if (record.agents) {
      writeContext(record);
      await progress.phase('agents answer', () =>
        Promise.all(record.nodes.map((node) => waitForAgent(lab, node.name, 60_000))),
      );
      await progress.phase('nodes Ready', () =>
        waitForNodes(api, record, (node) => isReady(node) && isUntainted(node)),
      );
      await progress.phase('routes to the pods', () => routePods(api, record));
    }
    // Not before: its pods would all be put on the node that is ready first.
    const hasKubelet = record.nodes.some((node) => node.kubelet);
    if (hasKubelet) await ensureObjects(api, nameServer(record));
    await progress.phase('images imported', () => Promise.all(record.nodes.map((node) => waitForImages(lab, node))));
    if (hasKubelet && record.agents) await progress.phase('name server', () => waitForNameServer(api));
  } finally {
    api.close();
  }
  const finished: LabRecord = { ...record, phase: 'up' };
  writeRecord(finished);
  progress.note(`lab "${lab}" is up after ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  return finished;
}

/** True when a node's Ready condition is true. */
export function isReady(node: ApiObject): boolean {
  const conditions: { type: string; status: string }[] = node.status?.conditions ?? [];
  return conditions.some((each) => each.type === 'Ready' && each.status === 'True');
}

/** True when the scheduler no longer thinks that a node is not ready. */
function isUntainted(node: ApiObject): boolean {
  const taints: { key: string }[] = node.spec?.taints ?? [];
  return taints.every((taint) => taint.key !== 'node.kubernetes.io/not-ready');
}

async function waitForNodes(api: Api, record: LabRecord, condition: (node: ApiObject) => boolean): Promise<void> {
  await waitFor(
    'the nodes',
    async () => {
      requireAlive(record.name, controlPlaneParts);
      for (const node of record.nodes.filter((each) => each.kubelet)) {
        if (nodeInit(record.name, node.name) !== undefined) continue;
        const log = paths.log(record.name, node.name);
        throw new WeirError('LAB_NOT_RUNNING', `${node.name} has ended: ${lastLines(log)}`, `Its log: ${log}`);
      }
      const found = (await api.list('/api/v1/nodes')).filter(condition);
      const missing = record.nodes.filter((node) => !found.some((each) => each.metadata.name === node.name));
      if (missing.length > 0) throw new Error(`not there yet: ${missing.map((node) => node.name).join(', ')}`);
      return true;
    },
    120_000,
    100,
  );
}

/** Tells the CLI where this lab's agents are. */
function writeContext(record: LabRecord): void {
  const file = contextFile(record.name);
  mkdirSync(dirname(file), { recursive: true });
  const nodes = record.nodes.map((node) => {
    const sockets = agentSockets(record.name, node.name);
    return { name: node.name, socket: sockets.agent, hubbleSocket: sockets.hubble };
  });
  writeAtomically(file, `${JSON.stringify({ name: record.name, nodes }, null, 2)}\n`);
}

/** Starts a node again that `stopNode` has ended, and its agent. */
export async function restartNode(record: LabRecord, node: NodeSpec, progress: Progress): Promise<void> {
  const lab = record.name;
  if (nodeInit(lab, node.name) !== undefined) return;
  // What is left of the kubelet's pods is of no use: their sandboxes died with the node.
  rmSync(join(paths.node(lab, node.name), 'lib/cni'), { recursive: true, force: true });
  await startNode(record, node, await prepare(progress));
  if (record.agents) {
    await startAgent(lab, node.name);
    await waitForAgent(lab, node.name);
  }
  if (existsSync(paths.kubeconfig(lab))) await waitForImages(lab, node);
}
