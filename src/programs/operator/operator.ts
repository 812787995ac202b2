// One per cluster: hands each node its blocks of pod addresses and gives every set of pod labels an identity.
// Tables of pods and nodes are followed; what the objects of weir.dev should be is computed and written.

import { createIdentityAllocator } from '../../connect/identities/allocate-identities.ts';
import { nextBlock, type Pool } from '../../connect/ipam/block-pool.ts';
import { identityKey, identityLabels } from '../../core/identity.ts';
import { canonicalIp } from '../../core/ip.ts';
import { createTable } from '../../core/table.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type Watch, watch, watchIntoTable } from '../../kube/watch.ts';
import { installCustomResources } from '../../kube/weir/custom-resources.ts';
import { type WeirEndpointSlice, type WeirIdentity, type WeirNode, weirResources } from '../../kube/weir/schemas.ts';
import type { Log } from '../log.ts';

/** Settings of the operator. */
export interface OperatorOptions {
  readonly client: KubeClient;
  readonly log: Log;
  readonly pools: readonly Pool[];
  readonly ignoredLabels?: readonly string[];
  /** An identity that no pod has had for so long is deleted. */
  readonly identityGraceMs: number;
  readonly identityRange?: { first: number; last: number };
}

interface PodObject extends KubeObject {
  readonly spec?: { readonly serviceAccountName?: string; readonly hostNetwork?: boolean };
  readonly status?: { readonly phase?: string };
}

interface NodeObject extends KubeObject {
  readonly status?: { readonly addresses?: readonly { type: string; address: string }[] };
}

interface PodLabelsRow {
  readonly key: string;
  readonly identity: string;
  readonly labels: readonly string[];
}

interface NodeRow {
  readonly name: string;
  readonly uid: string;
  readonly addresses: readonly string[];
}

const apiVersion = 'weir.dev/v1alpha1';
const gcIntervalMs = 30_000;
/** From this share on the log warns of identities running out. */
const warnShare = 0.8;

/** Runs until the signal aborts. */
export async function runOperator(options: OperatorOptions, signal: AbortSignal): Promise<void> {
  const { client, log } = options;
  await waitForApi(client, log, signal);
  await installCustomResources(client, signal);
  log.info('definitions of weir.dev installed');

  const pods = createTable<PodLabelsRow, 'identity'>({
    name: 'pods',
    key: (row) => row.key,
    indexes: { identity: (row) => row.identity },
  });
  const nodes = createTable<NodeRow>({ name: 'nodes', key: (row) => row.name });
  const weirNodes = createTable<WeirNode & { name: string }>({ name: 'weir-nodes', key: (row) => row.name });
  const slices = new Map<string, { node: string; identities: readonly number[] }>();
  const sliceRow = (slice: WeirEndpointSlice) => ({
    node: slice.node,
    identities: Array.isArray(slice.endpoints) ? slice.endpoints.map((endpoint) => endpoint.identity) : [],
  });
  const identities = createIdentityAllocator(options.identityRange);
  let identitiesListed = false;
  const watches: Watch[] = [];
  const onState = (state: { resource: string; connected: boolean; error?: string }) => {
    if (state.error !== undefined) log.warn('lost the API server', { resource: state.resource, error: state.error });
  };

  watches.push(
    watchIntoTable<NodeObject, NodeRow>(client, kubernetesResources.nodes, nodes, nodeRow, { onState }),
    watchIntoTable<WeirNode, WeirNode & { name: string }>(
      client,
      weirResources.nodes,
      weirNodes,
      (object) => ({ ...object, name: object.metadata.name }),
      { onState },
    ),
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
    if (!identitiesListed || !pods.initialized) return;
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

  const reconcileNodes = serialize(
    async () => {
      if (!nodes.initialized || !weirNodes.initialized) return;
      const used = new Set<string>();
      for (const row of weirNodes.rows()) for (const cidr of row.spec.podCIDRs) used.add(cidr);
      for (const node of nodes.rows()) {
        const current = weirNodes.get(node.name);
        const spec = desiredSpec(node, current, options.pools, used, log);
        for (const cidr of spec.podCIDRs) used.add(cidr);
        if (current !== undefined && JSON.stringify(current.spec) === JSON.stringify(spec)) continue;
        const applied = await client.apply<WeirNode>(weirResources.nodes, {
          apiVersion,
          kind: 'WeirNode',
          metadata: { name: node.name },
          spec,
        });
        // Known now, and not when the watch brings it: until then another node might be given the same block.
        weirNodes.upsert({ ...applied, name: node.name });
        log.info('node has its blocks', { node: node.name, podCIDRs: spec.podCIDRs });
      }
      for (const row of weirNodes.rows()) {
        if (nodes.has(row.name)) continue;
        for (const [name, slice] of slices)
          if (slice.node === row.name) await ignoreMissing(client.delete(weirResources.endpointSlices, name));
        await ignoreMissing(client.delete(weirResources.nodes, row.name));
        log.info('node is gone: its blocks are free', { node: row.name });
      }
    },
    (error) => log.warn('could not write nodes', { error: error.message }),
  );
  nodes.subscribe(reconcileNodes);
  weirNodes.subscribe(reconcileNodes);

  const collect = setInterval(
    () => {
      if (!identitiesListed || !pods.initialized) return;
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

  log.info('operator runs', { server: client.server, pools: options.pools });
  await new Promise<void>((resolve) =>
    signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve()),
  );
  clearInterval(collect);
  for (const each of watches) each.stop();
}

/** A node's addresses as the API reports them, and blocks it has or gets. */
function desiredSpec(
  node: NodeRow,
  current: WeirNode | undefined,
  pools: readonly Pool[],
  used: ReadonlySet<string>,
  log: Log,
): WeirNode['spec'] {
  const taken = new Set(used);
  const podCIDRs = [...(current?.spec.podCIDRs ?? [])];
  for (const pool of pools) {
    const six = pool.cidr.includes(':');
    if (podCIDRs.some((cidr) => cidr.includes(':') === six)) continue;
    const block = nextBlock(pool, taken);
    if (block === undefined) {
      log.error('IPAM_POOL_EXHAUSTED: no block is left for a node', { node: node.name, pool: pool.cidr });
      continue;
    }
    taken.add(block);
    podCIDRs.push(block);
  }
  // In the order of the API's answers, with which it is compared.
  return { addresses: [...node.addresses], clusterPools: pools.map((pool) => pool.cidr), podCIDRs };
}

function nodeRow(node: NodeObject): NodeRow {
  const addresses = (node.status?.addresses ?? [])
    .filter((entry) => entry.type === 'InternalIP' || entry.type === 'ExternalIP')
    .flatMap((entry) => canonicalIp(entry.address) ?? []);
  return { name: node.metadata.name, uid: node.metadata.uid ?? '', addresses: [...new Set(addresses)] };
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
  return { key: `${pod.metadata.namespace}/${pod.metadata.name}`, labels, identity: identityKey(labels) };
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

async function ignoreMissing(promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
  } catch (error) {
    if (!hasStatus(error, 404)) throw error;
  }
}

/** Runs `work` after each call, one at a time; calls while it runs are one more run. Failures are retried. */
function serialize(work: () => Promise<void>, onError: (error: Error) => void): () => void {
  let running = false;
  let again = false;
  const run = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        onError(error as Error);
        await new Promise((resolve) => setTimeout(resolve, 500));
        again = true;
      }
    } while (again);
    running = false;
  };
  return () => void run();
}
