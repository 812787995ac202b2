// Keeps the table of frontends in step with Services, slices, host ports, the node, and who owns which address. Cost follows
// the change: a slice that changes makes its own Service anew, nothing else. Where two claim one address and port, a
// cluster IP goes before all else, and then the older keeps it.

import type { AddressRow, FrontendRow, ServiceRow, ServiceSliceRow } from '../../core/rows.ts';
import type { ChangeSet, ReadTable, Table } from '../../core/table.ts';
import { frontendsOf, type NodeContext, type ServiceFrontends } from './derive-frontends.ts';

/** What is known of a Service beside its frontends. */
export interface ServiceStatus {
  readonly service: string;
  readonly problems: readonly string[];
  readonly localReady: number;
}

/** What the node is; who owns which address is found in the tables. */
export interface NodeFacts extends Omit<NodeContext, 'namespaceOf' | 'refuseClaim'> {
  /** The node that has this address. */
  readonly nodeOf: (address: string) => string | undefined;
}

/** A running derivation. */
export interface ServiceDerivation {
  /** Takes up what changed since the last run. */
  run(): void;
  /** The node itself changed (addresses, zone, what is in maintenance): everything is made anew. */
  nodeChanged(): void;
  status(service: string): ServiceStatus | undefined;
  statuses(): ServiceStatus[];
  /** Services whose status may have changed since the last call, those that went among them. */
  takeChanged(): string[];
}

/** Frontends that are not of Services: host ports of this node's pods, by their owner. */
export interface ExtraFrontends {
  readonly owner: string;
  readonly createdAt: string;
  readonly frontends: readonly FrontendRow[];
}

/** Services by their cluster IPs too. */
export type ServiceTable = ReadTable<ServiceRow, 'clusterIp'>;

interface Claimant {
  readonly owner: string;
  readonly createdAt: string;
  readonly row: FrontendRow;
}

const none: readonly never[] = [];

interface Made extends ServiceFrontends {
  /** Addresses whose owners decide about the Service: claims, and endpoints that are not known as pods of its own. */
  readonly mentions: readonly string[];
}

/** Derives `to` from the sources. Nothing is written before each of them has been read once. */
export function createServiceDerivation(options: {
  readonly services: ServiceTable;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly extras: ReadTable<ExtraFrontends>;
  /** Whose each address is. */
  readonly addresses: ReadTable<AddressRow>;
  readonly to: Table<FrontendRow>;
  readonly node: () => NodeFacts;
}): ServiceDerivation {
  const { services, slices, extras, addresses, to } = options;
  const seen = { services: 0, slices: 0, extras: 0, addresses: 0 };
  const made = new Map<string, Made>();
  const madeExtras = new Map<string, readonly FrontendRow[]>();
  const claims = new Map<string, Claimant | readonly Claimant[]>();
  const mentionedBy = new Map<string, string | Set<string>>();
  const changedStatus = new Set<string>();
  let context: NodeContext | undefined;

  function claimantsOf(key: string): readonly Claimant[] {
    const known = claims.get(key) ?? none;
    return Array.isArray(known) ? known : [known as Claimant];
  }

  /** Mostly there is one: a list for each would be much of what claims take. */
  function setClaimants(key: string, list: readonly Claimant[]): void {
    if (list.length === 0) claims.delete(key);
    else claims.set(key, list.length === 1 ? list[0]! : list);
  }

  /** Gives an owner these frontends in place of those it had; answers the keys that may have changed hands. */
  function claim(
    owner: string,
    createdAt: string,
    before: readonly FrontendRow[],
    after: readonly FrontendRow[],
    touched: Set<string>,
  ) {
    for (const row of before) {
      setClaimants(
        row.key,
        claimantsOf(row.key).filter((each) => each.owner !== owner),
      );
      touched.add(row.key);
    }
    for (const row of after) {
      setClaimants(row.key, [...claimantsOf(row.key), { owner, createdAt, row }].sort(byPrecedence));
      touched.add(row.key);
    }
  }

  function mention(service: string, before: readonly string[], after: readonly string[]): void {
    if (before.length === after.length && before.every((address, i) => address === after[i])) return;
    for (const address of before) {
      const by = mentionedBy.get(address);
      if (by === service) mentionedBy.delete(address);
      else if (by instanceof Set && by.delete(service) && by.size === 0) mentionedBy.delete(address);
    }
    for (const address of after) {
      const by = mentionedBy.get(address);
      if (by === undefined) mentionedBy.set(address, service);
      else if (by instanceof Set) by.add(service);
      else if (by !== service) mentionedBy.set(address, new Set([by, service]));
    }
  }

  function mentioning(address: string): Iterable<string> {
    const by = mentionedBy.get(address) ?? [];
    return typeof by === 'string' ? [by] : by;
  }

  function take<R>(table: ReadTable<R, never>, which: keyof typeof seen): ChangeSet<R> {
    const set = table.changesSince(seen[which]);
    seen[which] = set.revision;
    return set;
  }

  function changedServices(): Set<string> {
    const changed = new Set<string>();
    const serviceSet = take<ServiceRow>(services, 'services');
    const sliceSet = take<ServiceSliceRow>(slices, 'slices');
    const addressSet = take<AddressRow>(addresses, 'addresses');
    if (context === undefined || serviceSet.resync || sliceSet.resync || addressSet.resync) {
      for (const key of made.keys()) changed.add(key);
      for (const row of services.rows()) changed.add(row.key);
      return changed;
    }
    for (const { key, before, after } of serviceSet.changes) {
      changed.add(String(key));
      const ips = new Set([...(before?.clusterIps ?? []), ...(after?.clusterIps ?? [])]);
      for (const ip of ips) for (const service of mentioning(ip)) changed.add(service);
    }
    for (const { before, after } of sliceSet.changes) {
      if (before !== undefined) changed.add(before.service);
      if (after !== undefined) changed.add(after.service);
    }
    const released = new Map<string, Set<string>>();
    for (const { key, before, after } of addressSet.changes) {
      for (const service of mentioning(String(key))) changed.add(service);
      if (before?.kind !== 'pod' || (after?.kind === 'pod' && after.namespace === before.namespace)) continue;
      const list = released.get(before.namespace!);
      if (list === undefined) released.set(before.namespace!, new Set([before.address]));
      else list.add(before.address);
    }
    // A slice that still names a pod which is not its namespace's any more: from now on its address is watched.
    if (released.size > 0)
      for (const slice of slices.rows()) {
        const gone = released.get(slice.namespace);
        if (gone && slice.addresses.some((address) => gone.has(address))) changed.add(slice.service);
      }
    return changed;
  }

  function makeContext(): NodeContext {
    const node = options.node();
    const podOf = (address: string) => {
      const row = addresses.get(address);
      return row?.kind === 'pod' ? row : undefined;
    };
    return {
      ...node,
      namespaceOf: (address) => podOf(address)?.namespace,
      refuseClaim(address) {
        const holder = services.by('clusterIp', address)[0];
        if (holder !== undefined) return `it is the cluster IP of ${holder.key}`;
        const owner = node.nodeOf(address);
        if (owner !== undefined) return `it is an address of node ${owner}`;
        const row = addresses.get(address);
        if (row?.kind === 'pod') return `it is the address of pod ${row.namespace}/${row.pod}`;
        if (row?.kind === 'kube-apiserver') return 'it is the address of the API server';
        return row && `it is an address of node ${row.node}`;
      },
    };
  }

  function deriveService(key: string, node: NodeContext, touched: Set<string>): void {
    const service = services.get(key);
    const before = made.get(key);
    const own = service === undefined ? [] : slices.by('service', key);
    const after = service && frontendsOf(service, own, node);
    claim(key, service?.createdAt ?? '', before?.frontends ?? [], after?.frontends ?? [], touched);
    const mentions = service === undefined ? none : mentionsOf(service, own, node);
    mention(key, before?.mentions ?? [], mentions);
    if (after === undefined) made.delete(key);
    else made.set(key, { ...after, mentions });
    changedStatus.add(key);
  }

  function deriveExtras(touched: Set<string>): void {
    const set = take<ExtraFrontends>(extras, 'extras');
    const changed = new Set(set.changes.map((change) => String(change.key)));
    if (set.resync) for (const owner of madeExtras.keys()) changed.add(owner);
    for (const owner of changed) {
      const row = extras.get(owner);
      claim(owner, row?.createdAt ?? '', madeExtras.get(owner) ?? [], row?.frontends ?? [], touched);
      if (row === undefined) madeExtras.delete(owner);
      else madeExtras.set(owner, row.frontends);
    }
  }

  function run(): void {
    if (![services, slices, extras, addresses].every((table) => table.initialized)) return;
    const touched = new Set<string>();
    const changed = changedServices();
    context ??= makeContext();
    for (const key of changed) deriveService(key, context, touched);
    deriveExtras(touched);
    const upsert: FrontendRow[] = [];
    const gone: string[] = [];
    for (const key of touched) {
      const claimants = claimantsOf(key);
      if (claimants.length === 0) gone.push(key);
      else upsert.push(claimants[0]!.row);
      for (const { owner } of claimants) changedStatus.add(owner);
    }
    to.batch(() => {
      to.delete(gone);
      to.upsert(upsert);
    });
    to.markInitialized();
  }

  function status(service: string): ServiceStatus | undefined {
    const result = made.get(service);
    if (result === undefined) return undefined;
    const lost = result.frontends.flatMap((row) => {
      const holder = claimantsOf(row.key)[0]?.owner;
      return holder === undefined || holder === service ? [] : [`${row.key} is ignored: ${holder} has it already`];
    });
    return { service, problems: [...result.problems, ...lost], localReady: result.localReady };
  }

  return {
    run,
    nodeChanged() {
      context = undefined;
      run();
    },
    status,
    statuses: () => [...made.keys()].map((key) => status(key)!),
    takeChanged() {
      const keys = [...changedStatus];
      changedStatus.clear();
      return keys;
    },
  };
}

function mentionsOf(service: ServiceRow, slices: readonly ServiceSliceRow[], node: NodeContext): readonly string[] {
  const mentions = [...service.externalIps, ...service.loadBalancerIps];
  for (const slice of slices)
    for (const address of slice.addresses) if (node.namespaceOf(address) !== service.namespace) mentions.push(address);
  return mentions.length === 0 ? none : [...mentions]; // without the room that a list keeps for growing
}

/** A cluster IP cannot be claimed before it is given, so age does not count against it. */
function byPrecedence(a: Claimant, b: Claimant): number {
  const first = Number(b.row.kind === 'ClusterIP') - Number(a.row.kind === 'ClusterIP');
  if (first !== 0) return first;
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  return a.owner < b.owner ? -1 : a.owner > b.owner ? 1 : 0;
}
