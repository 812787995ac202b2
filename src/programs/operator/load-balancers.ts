// Gives services of type LoadBalancer their addresses: follows pools and services, and writes what follows from them into
// the status of both. What a service has is read from its status, so a new operator goes on where the last one was.
import { type Assignment, assignAddresses, type Outcome } from '../../connect/load-balancers/assign-addresses.ts';
import { type PoolRow, parsePool } from '../../connect/load-balancers/parse-pool.ts';
import {
  type AddressRequest,
  type Condition,
  parseRequest,
  type RequestObject,
  requestCondition,
} from '../../connect/load-balancers/parse-request.ts';
import { poolConditions, withCondition } from '../../connect/load-balancers/status-conditions.ts';
import { deepEqual } from '../../core/equal.ts';
import { errorText } from '../../core/errors.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { ciliumResources, type LoadBalancerPool } from '../../kube/cilium/schemas.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { isNewer } from '../../kube/lease-rule.ts';
import { type KubeObject, kubernetesResources, type Resource, resourcePath } from '../../kube/resource.ts';
import { type WatchState, watchIntoTable } from '../../kube/watch.ts';
import { installCustomResources } from '../../kube/weir/custom-resources.ts';
import type { Log } from '../log.ts';
import type { OperatorFacts } from './metrics.ts';
import type { OperatorNode } from './node-blocks.ts';
import { serialize } from './serialize.ts';

/** What it needs of the operator. */
export interface LoadBalancerOptions {
  readonly client: KubeClient;
  readonly log: Log;
  /** Asked before each write. */
  readonly mayAct: () => boolean;
  readonly onState: (state: WatchState) => void;
  /** Their addresses are given to no service, whatever the pools say. */
  readonly nodes: ReadTable<OperatorNode>;
  readonly facts: OperatorFacts;
}

interface PoolEntry extends PoolRow {
  readonly conditions: readonly Condition[];
  readonly version: string;
}

interface ServiceEntry extends AddressRequest {
  readonly conditions: readonly Condition[];
}

const writesAtOnce = 16;

/** Installs the definition of pools and works until the signal aborts. */
export async function startLoadBalancers(options: LoadBalancerOptions, signal: AbortSignal): Promise<void> {
  const { client, log, mayAct, onState, nodes } = options;
  await installCustomResources(client, signal, [ciliumResources.loadBalancerPools]);
  const pools = createTable<PoolEntry>({ name: 'load-balancer-pools', key: (row) => row.name });
  const services = createTable<ServiceEntry>({ name: 'address-requests', key: (row) => row.key });
  options.facts.loadBalancers = () => {
    const all = [...services.rows()];
    return {
      pools: pools.size,
      addresses: all.reduce((sum, { assigned }) => sum + assigned.length, 0),
      waiting: all.filter(({ assigned }) => assigned.length === 0).length,
    };
  };
  /** Versions that this operator wrote: what the watch brings of earlier ones is old news. */
  const written = new Map<string, string>();

  const toPool = (object: LoadBalancerPool): PoolEntry => ({
    ...parsePool(object),
    conditions: object.status?.conditions ?? [],
    version: object.metadata.resourceVersion ?? '',
  });
  const toService = (object: RequestObject): ServiceEntry | undefined => {
    const request = parseRequest(object);
    return request && { ...request, conditions: object.status?.conditions ?? [] };
  };
  const watches = [
    watchIntoTable<LoadBalancerPool, PoolEntry>(client, ciliumResources.loadBalancerPools, pools, toPool, { onState }),
    watchIntoTable<KubeObject, ServiceEntry>(
      client,
      kubernetesResources.services,
      services,
      (object) => {
        const key = `${object.metadata.namespace}/${object.metadata.name}`;
        const known = services.get(key);
        const ours = written.get(object.metadata.uid ?? '');
        if (ours === undefined) return toService(object as RequestObject);
        if (isNewer(object.metadata.resourceVersion ?? '', ours)) written.delete(object.metadata.uid ?? '');
        else if (known?.uid === object.metadata.uid) return known;
        return toService(object as RequestObject);
      },
      { onState },
    ),
  ];

  async function patchStatus<T>(
    resource: Resource,
    row: { name: string; namespace?: string; version: string },
    status: object,
  ) {
    if (!mayAct()) throw new Error('this operator does not lead any more');
    return client.request<T>('PATCH', `${resourcePath(resource, row.namespace, row.name)}/status`, {
      body: { metadata: { resourceVersion: row.version }, status },
      contentType: 'application/merge-patch+json',
      signal,
    });
  }

  async function writeService(row: ServiceEntry, outcome: Outcome | undefined): Promise<void> {
    const addresses = outcome?.addresses ?? [];
    const conditions = withCondition(
      row.conditions,
      requestCondition,
      outcome && {
        status: outcome.reason === 'satisfied' ? 'True' : 'False',
        reason: outcome.reason,
        message: outcome.message,
      },
    );
    if (deepEqual(addresses, row.assigned) && deepEqual(conditions, row.conditions)) return;
    const before = row.conditions.find((each) => each.type === requestCondition);
    const ingress = addresses.map((ip) => ({ ip }));
    const object = await patchStatus<RequestObject>(kubernetesResources.services, row, {
      loadBalancer: { ingress: ingress.length === 0 ? null : ingress },
      conditions,
    });
    written.set(row.uid, object.metadata.resourceVersion ?? '');
    const after = toService(object);
    if (after === undefined) services.delete(row.key);
    else services.upsert(after);
    log.info('service has its addresses', { service: row.key, addresses, reason: outcome?.reason ?? 'released' });
    if (outcome !== undefined && outcome.reason !== 'satisfied' && before?.message !== outcome.message)
      await tellRefusal(row, outcome).catch((error) =>
        log.warn('could not write an event', { service: row.key, error: errorText(error) }),
      );
  }

  /** What `kubectl describe service` shows. */
  async function tellRefusal(row: ServiceEntry, outcome: Outcome): Promise<void> {
    const now = new Date();
    await client.create<KubeObject>(kubernetesResources.events, {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${row.name}.${now.getTime().toString(16)}`, namespace: row.namespace },
      involvedObject: { apiVersion: 'v1', kind: 'Service', name: row.name, namespace: row.namespace, uid: row.uid },
      type: 'Warning',
      reason: 'NoAddress',
      message: `${outcome.message} (${outcome.reason})`,
      source: { component: 'weir-operator' },
      firstTimestamp: now.toISOString().replace(/\.\d+Z$/, 'Z'),
      lastTimestamp: now.toISOString().replace(/\.\d+Z$/, 'Z'),
      count: 1,
    } as KubeObject);
  }

  async function writePool(row: PoolEntry, assignment: Assignment): Promise<void> {
    const conditions = poolConditions(row, assignment.pools.get(row.name)!, row.conditions);
    if (deepEqual(conditions, row.conditions)) return;
    const object = await patchStatus<LoadBalancerPool>(ciliumResources.loadBalancerPools, row, { conditions });
    pools.upsert(toPool(object));
    const { conflict } = assignment.pools.get(row.name)!;
    if (conflict !== undefined) log.warn('a pool of addresses is not used', { pool: row.name, why: conflict });
  }

  const reconcile = serialize(
    async () => {
      if (!pools.initialized || !services.initialized || !nodes.initialized || !mayAct()) return;
      const taken = new Map<string, string>();
      for (const node of nodes.rows()) for (const address of node.addresses) taken.set(address, `node ${node.name}`);
      const assignment = assignAddresses(pools.rows(), services.rows(), taken);
      // Whoever gives an address back comes first: the next may have been given it.
      const gives = (row: ServiceEntry, outcome: Outcome | undefined) =>
        row.assigned.some((address) => !outcome?.addresses.includes(address));
      const work = [...assignment.services]
        .map(([key, outcome]) => ({ row: services.get(key)!, outcome }))
        .filter(({ row }) => row !== undefined);
      for (const first of [true, false])
        await inBatches(
          work.filter(({ row, outcome }) => gives(row, outcome) === first),
          ({ row, outcome }) => ignoreOvertaken(writeService(row, outcome)),
        );
      for (const row of [...pools.rows()]) await ignoreOvertaken(writePool(row, assignment));
    },
    signal,
    (error) => log.warn('could not write addresses', { error: error.message }),
  );
  pools.subscribe(reconcile);
  const unfollowNodes = nodes.subscribe(reconcile);
  services.subscribe(({ changes }) => {
    for (const { before, after } of changes)
      if (before !== undefined && after === undefined) written.delete(before.uid);
    reconcile();
  });
  signal.addEventListener('abort', () => {
    unfollowNodes();
    for (const each of watches) each.stop();
  });
}

/** Somebody changed or deleted the object meanwhile: the watch brings it, and it is looked at again. */
async function ignoreOvertaken(writing: Promise<void>): Promise<void> {
  try {
    await writing;
  } catch (error) {
    if (!hasStatus(error, 409) && !hasStatus(error, 404)) throw error;
  }
}

async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < items.length; i += writesAtOnce) await Promise.all(items.slice(i, i + writesAtOnce).map(work));
}
