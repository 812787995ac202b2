// One per cluster: hands each node its blocks of pod addresses and gives every set of pod labels an identity.
// Tables of pods and nodes are followed; what the objects of weir.dev should be is computed and written.

import { createIdentityAllocator } from '../../connect/identities/allocate-identities.ts';
import type { Pool } from '../../connect/ipam/block-pool.ts';
import { identityKey, identityLabels } from '../../core/identity.ts';
import { canonicalIp } from '../../core/ip.ts';
import { createTable } from '../../core/table.ts';
import { policyResources } from '../../kube/cilium/schemas.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type Watch, watch, watchIntoTable } from '../../kube/watch.ts';
import { bindNode, installAdmission, unbindNode } from '../../kube/weir/admission.ts';
import { installCustomResources } from '../../kube/weir/custom-resources.ts';
import {
  type WeirBlock,
  type WeirEndpointSlice,
  type WeirIdentity,
  type WeirNode,
  weirResources,
} from '../../kube/weir/schemas.ts';
import type { Log } from '../log.ts';
import { clearLeases } from './announcement-leases.ts';
import { whileLeading } from './leadership.ts';
import { startLoadBalancers } from './load-balancers.ts';
import { createOperatorFacts, forgetTerm, type OperatorFacts } from './metrics.ts';
import { createNodeBlocks, type Named, type OperatorNode } from './node-blocks.ts';
import { startPolicyStatus } from './policy-status.ts';
import { serialize } from './serialize.ts';

/** Settings of the operator. */
export interface OperatorOptions {
  readonly client: KubeClient;
  readonly log: Log;
  readonly pools: readonly Pool[];
  readonly ignoredLabels?: readonly string[];
  /** What becomes of policies that do not say so, nor their namespace; the agents are told the same. */
  readonly policyEnforcement?: 'enforced' | 'staged';
  /** An identity that no pod has had for so long is deleted. */
  readonly identityGraceMs: number;
  readonly identityRange?: { first: number; last: number };
  /** The block of a node that is gone is kept for at least so long. */
  readonly blockRestMs: number;
  /** One operator leads while it renews its lease; another takes over when the lease has not been renewed for so long. */
  readonly leaseMs: number;
  readonly leaseNamespace: string;
  /** Where the operator says what it does. */
  readonly facts?: OperatorFacts;
}

interface PodObject extends KubeObject {
  readonly spec?: { readonly serviceAccountName?: string; readonly hostNetwork?: boolean; readonly nodeName?: string };
  readonly status?: { readonly phase?: string };
}

interface NodeObject extends KubeObject {
  readonly status?: { readonly addresses?: readonly { type: string; address: string }[] };
}

interface PodLabelsRow {
  readonly key: string;
  readonly identity: string;
  readonly labels: readonly string[];
  readonly node?: string;
}

const apiVersion = 'weir.dev/v1alpha1';
const gcIntervalMs = 30_000;
/** From this share on the log warns of identities running out. */
const warnShare = 0.8;

/** How often it is looked whether the block of a node that is gone can be given away. */
const blockCheckMs = 2_000;

/** Runs until the signal aborts: leads, or waits while another operator does. */
export async function runOperator(options: OperatorOptions, signal: AbortSignal): Promise<void> {
  const { client, log, leaseMs, leaseNamespace: namespace } = options;
  log.info('operator starts', { server: client.server, pools: options.pools });
  await waitForApi(client, log, signal).catch(() => {});
  const { facts = createOperatorFacts() } = options;
  await whileLeading(
    { client, log, namespace, leaseMs },
    async (term, mayAct) => {
      facts.leading = true;
      try {
        await lead(options, facts, mayAct, term);
      } finally {
        forgetTerm(facts);
      }
    },
    signal,
  );
}

/** Does the operator's work until the signal aborts. */
async function lead(
  options: OperatorOptions,
  facts: OperatorFacts,
  mayAct: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  const { client, log } = options;
  await installCustomResources(client, signal, [...Object.values(weirResources), ...Object.values(policyResources)]);
  log.info('definitions of weir.dev and of policies installed');
  const hasRules = await installRules(client, log);
  const pods = createTable<PodLabelsRow, 'identity' | 'node'>({
    name: 'pods',
    key: (row) => row.key,
    indexes: { identity: (row) => row.identity, node: (row) => row.node },
  });
  const nodes = createTable<OperatorNode>({ name: 'nodes', key: (row) => row.name });
  const weirNodes = createTable<Named<WeirNode>>({ name: 'weir-nodes', key: (row) => row.name });
  const blocks = createTable<Named<WeirBlock>>({ name: 'weir-blocks', key: (row) => row.name });
  const slices = new Map<string, { node: string; identities: readonly number[] }>();
  const sliceRow = (slice: WeirEndpointSlice) => ({
    node: slice.node,
    identities: Array.isArray(slice.endpoints) ? slice.endpoints.map((endpoint) => endpoint.identity) : [],
  });
  const identities = createIdentityAllocator(options.identityRange);
  facts.identities = identities.usage;
  facts.blocks = () => blocks.rows();
  let identitiesListed = false;
  let slicesListed = false;
  const watches: Watch[] = [];
  const onState = (state: { resource: string; connected: boolean; error?: string }) => {
    if (!signal.aborted) facts.watches.set(state.resource, state.connected);
    if (state.error !== undefined) log.warn('lost the API server', { resource: state.resource, error: state.error });
  };

  watches.push(
    watchIntoTable<NodeObject, OperatorNode>(client, kubernetesResources.nodes, nodes, nodeRow, { onState }),
    watchIntoTable<WeirNode, Named<WeirNode>>(client, weirResources.nodes, weirNodes, named, { onState }),
    watchIntoTable<WeirBlock, Named<WeirBlock>>(client, weirResources.blocks, blocks, named, { onState }),
    watchIntoTable<PodObject, PodLabelsRow>(
      client,
      kubernetesResources.pods,
      pods,
      (pod) => podRow(pod, options.ignoredLabels),
      { onState },
    ),
    watch<WeirIdentity>(
      client,
      weirResources.identities,
      {
        list(items) {
          const present = new Set(items.map((item) => Number(item.metadata.name)));
          for (const id of [...known.keys()]) if (!present.has(id)) forget(id);
          for (const item of items) learn(item);
          identitiesListed = true;
          allocate();
        },
        upsert: learn,
        delete(item) {
          forget(Number(item.metadata.name));
          allocate();
        },
      },
      { onState },
    ),
    watch<WeirEndpointSlice>(
      client,
      weirResources.endpointSlices,
      {
        list(items) {
          slices.clear();
          for (const item of items) slices.set(item.metadata.name, sliceRow(item));
          slicesListed = true;
        },
        upsert: (item) => slices.set(item.metadata.name, sliceRow(item)),
        delete: (item) => slices.delete(item.metadata.name),
      },
      { onState },
    ),
  );

  const known = new Map<number, WeirIdentity>();
  function learn(item: WeirIdentity): void {
    const id = Number(item.metadata.name);
    if (!Number.isInteger(id) || !Array.isArray(item.labels)) {
      log.warn('ignored an identity that is not one', { name: item.metadata.name });
      return;
    }
    known.set(id, item);
    identities.learn({ id, labels: item.labels });
  }

  function forget(id: number): void {
    known.delete(id);
    identities.forget(id);
  }

  let warned = false;
  /** Gives numbers to the labels of these pods, or of all. */
  function allocate(rows: Iterable<PodLabelsRow> = pods.rows()): void {
    if (!identitiesListed || !pods.initialized || !mayAct()) return;
    for (const row of rows) {
      const given = identities.numberFor(row.labels);
      if (given === undefined) {
        if (!warned)
          log.error('no identity number is left: pods with new labels stay without network', {
            ...identities.usage(),
            labels: row.labels,
          });
        warned = true;
        continue;
      }
      if (given.isNew) void createIdentity(given.id, row.labels);
    }
    const { used, capacity } = identities.usage();
    if (used >= capacity * warnShare && !warned) {
      warned = true;
      log.warn('identity numbers are running out: look for labels that differ from pod to pod', { used, capacity });
    } else if (used < capacity * warnShare * 0.9) warned = false;
  }

  async function createIdentity(id: number, labels: readonly string[]): Promise<void> {
    try {
      await client.create<WeirIdentity>(weirResources.identities, {
        apiVersion,
        kind: 'WeirIdentity',
        metadata: { name: String(id) },
        labels: [...labels],
      });
      facts.written.identities++;
      log.debug('identity created', { id, labels });
    } catch (error) {
      identities.forget(id);
      if (!hasStatus(error, 409)) log.warn('could not create an identity', { id, error: (error as Error).message });
      // The number belongs to somebody after all, or the API is away: what is still wanted is asked for again.
      setTimeout(() => allocate(), 500).unref();
    }
  }

  pods.subscribe((set) =>
    allocate(
      set.changes.length === 0
        ? pods.rows()
        : set.changes.flatMap((change) => (change.after === undefined ? [] : [change.after])),
    ),
  );

  const nodeBlocks = createNodeBlocks({
    client,
    log,
    pools: options.pools,
    nodes,
    weirNodes,
    blocks,
    podsOf: (node) => (pods.initialized ? pods.by('node', node).length : undefined),
    slicesOf: (node) =>
      slicesListed ? [...slices].flatMap(([name, slice]) => (slice.node === node ? name : [])) : undefined,
    restMs: options.blockRestMs,
    async bind(node) {
      if (hasRules) await bindNode(client, node);
      return hasRules;
    },
    unbind: async (node) => (hasRules ? unbindNode(client, node) : undefined),
    assertLeading() {
      if (!mayAct()) throw new Error('this operator does not lead any more');
    },
    nowMs: () => performance.now(),
  });
  const reconcileNodes = serialize(nodeBlocks.reconcile, signal, (error) =>
    log.warn('could not write nodes', { error: error.message }),
  );
  nodes.subscribe(reconcileNodes);
  weirNodes.subscribe(reconcileNodes);
  blocks.subscribe(reconcileNodes);
  clearLeases({ client, log, mayAct }, signal);
  void startLoadBalancers({ client, log, mayAct, onState, nodes, facts }, signal).catch((error: Error) => {
    if (!signal.aborted) log.error('services get no addresses', { error: error.message });
  });
  startPolicyStatus(
    {
      client,
      log,
      mayAct,
      onState,
      nodes,
      onWritten: () => facts.written.policyStatuses++,
      clusterStaged: options.policyEnforcement === 'staged',
      ...(options.ignoredLabels && { ignoredLabels: options.ignoredLabels }),
    },
    signal,
  );
  const checkBlocks = setInterval(reconcileNodes, Math.min(blockCheckMs, Math.max(200, options.blockRestMs / 4)));

  const collect = setInterval(
    () => {
      if (!identitiesListed || !pods.initialized || !mayAct()) return;
      const inUse = new Set<string>();
      for (const row of pods.rows()) inUse.add(row.identity);
      // What a node still says of its pods counts: a number that came to mean others would give them what is the others'.
      const named = new Set([...slices.values()].flatMap((slice) => slice.identities));
      for (const id of named) {
        const labels = known.get(id)?.labels;
        if (labels !== undefined) inUse.add(identityKey(labels));
      }
      const unused = identities.unused(inUse, Date.now(), options.identityGraceMs);
      for (const id of [...unused, ...identities.duplicates().filter((each) => !named.has(each))]) {
        client.delete(weirResources.identities, String(id)).then(
          () => log.info('identity collected', { id }),
          (error: Error) =>
            hasStatus(error, 404) || log.warn('could not collect an identity', { id, error: error.message }),
        );
      }
    },
    Math.min(gcIntervalMs, Math.max(200, options.identityGraceMs / 2)),
  );

  await new Promise<void>((resolve) =>
    signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve()),
  );
  clearInterval(collect);
  clearInterval(checkBlocks);
  for (const each of watches) each.stop();
}

/** False, and a word about it, where the rules cannot be had: pods get their network all the same. */
async function installRules(client: KubeClient, log: Log): Promise<boolean> {
  try {
    if (await installAdmission(client)) return true;
    log.warn('agents may write for other nodes: the API server is older than Kubernetes 1.30 and has no such rules');
  } catch (error) {
    log.error('agents may write for other nodes: the rules cannot be installed', { error: (error as Error).message });
  }
  return false;
}

function named<T extends { metadata: { name: string } }>(object: T): Named<T> {
  return { ...object, name: object.metadata.name };
}

/** A node with its addresses as the API reports them. */
function nodeRow(node: NodeObject): OperatorNode {
  const addresses = (node.status?.addresses ?? [])
    .filter((entry) => entry.type === 'InternalIP' || entry.type === 'ExternalIP')
    .flatMap((entry) => canonicalIp(entry.address) ?? []);
  return { name: node.metadata.name, addresses: [...new Set(addresses)], labels: node.metadata.labels ?? {} };
}

function podRow(pod: PodObject, ignored?: readonly string[]): PodLabelsRow | undefined {
  if (pod.spec?.hostNetwork || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return undefined;
  const labels = identityLabels(
    {
      namespace: pod.metadata.namespace ?? 'default',
      serviceAccount: pod.spec?.serviceAccountName ?? 'default',
      labels: pod.metadata.labels ?? {},
    },
    ignored,
  );
  return {
    key: `${pod.metadata.namespace}/${pod.metadata.name}`,
    labels,
    identity: identityKey(labels),
    node: pod.spec?.nodeName,
  };
}

async function waitForApi(client: KubeClient, log: Log, signal: AbortSignal): Promise<void> {
  for (let said = false; ; said = true) {
    signal.throwIfAborted();
    try {
      await client.request('GET', '/version', { timeoutMs: 5000, signal });
      return;
    } catch (error) {
      if (!said) log.warn('waiting for the API server', { server: client.server, error: (error as Error).message });
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}
