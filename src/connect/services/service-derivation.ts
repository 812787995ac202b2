// Keeps the table of frontends in step with Services, slices, host ports and the node. Cost follows the change: a slice
// that changes makes its own Service anew, nothing else. Where two claim one address and port, the older keeps it.

import type { FrontendRow, ServiceRow, ServiceSliceRow } from '../../core/rows.ts';
import type { ChangeSet, ReadTable, Table } from '../../core/table.ts';
import { frontendsOf, type NodeContext, type ServiceFrontends } from './derive-frontends.ts';

/** What is known of a Service beside its frontends. */
export interface ServiceStatus {
  readonly service: string;
  readonly problems: readonly string[];
  readonly localReady: number;
}

/** A running derivation. */
export interface ServiceDerivation {
  /** Takes up what changed since the last run. */
  run(): void;
  /** The node itself changed (addresses, zone, who owns which address): everything is made anew. */
  nodeChanged(): void;
  status(service: string): ServiceStatus | undefined;
  statuses(): ServiceStatus[];
}

/** Frontends that are not of Services: host ports of this node's pods, by their owner. */
export interface ExtraFrontends {
  readonly owner: string;
  readonly createdAt: string;
  readonly frontends: readonly FrontendRow[];
}

interface Claimant {
  readonly owner: string;
  readonly createdAt: string;
  readonly row: FrontendRow;
}

/** Derives `to` from the sources. `extras` may be empty. */
export function createServiceDerivation(options: {
  readonly services: ReadTable<ServiceRow>;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly extras: ReadTable<ExtraFrontends>;
  readonly to: Table<FrontendRow>;
  readonly node: () => NodeContext;
}): ServiceDerivation {
  const { services, slices, extras, to } = options;
  const seen = { services: 0, slices: 0, extras: 0 };
  const made = new Map<string, ServiceFrontends & { createdAt: string }>();
  const claims = new Map<string, Claimant[]>();
  const losing = new Map<string, string[]>();
  let everything = false;

  /** Gives an owner these frontends in place of those it had; answers the keys that may have changed hands. */
  function claim(
    owner: string,
    createdAt: string,
    before: readonly FrontendRow[],
    after: readonly FrontendRow[],
    touched: Set<string>,
  ) {
    for (const row of before) {
      const left = (claims.get(row.key) ?? []).filter((each) => each.owner !== owner);
      if (left.length === 0) claims.delete(row.key);
      else claims.set(row.key, left);
      touched.add(row.key);
    }
    for (const row of after) {
      const list = (claims.get(row.key) ?? []).filter((each) => each.owner !== owner);
      list.push({ owner, createdAt, row });
      list.sort((a, b) =>
        a.createdAt !== b.createdAt ? (a.createdAt < b.createdAt ? -1 : 1) : a.owner < b.owner ? -1 : 1,
      );
      claims.set(row.key, list);
      touched.add(row.key);
    }
  }

  function take<R>(table: ReadTable<R, 'service'> | ReadTable<R>, which: keyof typeof seen): ChangeSet<R> {
    const set = table.changesSince(seen[which]);
    seen[which] = set.revision;
    return set as ChangeSet<R>;
  }

  function run(): void {
    if (!services.initialized || !slices.initialized || !extras.initialized) return;
    const changed = new Set<string>();
    const changedExtras = new Map<string, { before?: ExtraFrontends; after?: ExtraFrontends }>();
    const serviceSet = take(services, 'services');
    const sliceSet = take(slices, 'slices');
    const extraSet = take(extras, 'extras');
    for (const change of serviceSet.changes) changed.add(String(change.key));
    for (const { before, after } of sliceSet.changes) {
      if (before !== undefined) changed.add(before.service);
      if (after !== undefined) changed.add(after.service);
    }
    for (const change of extraSet.changes) changedExtras.set(String(change.key), change);
    if (everything || serviceSet.resync || sliceSet.resync) {
      for (const key of made.keys()) changed.add(key);
      for (const row of services.rows()) changed.add(row.key);
    }
    everything = false;

    const touched = new Set<string>();
    const node = options.node();
    for (const key of changed) {
      const service = services.get(key);
      const before = made.get(key);
      const result = service && frontendsOf(service, slices.by('service', key), node);
      claim(key, service?.createdAt ?? '', before?.frontends ?? [], result?.frontends ?? [], touched);
      if (result === undefined) made.delete(key);
      else made.set(key, { ...result, createdAt: service!.createdAt });
    }
    for (const { before, after } of changedExtras.values()) {
      const owner = (after ?? before)!.owner;
      claim(owner, after?.createdAt ?? '', before?.frontends ?? [], after?.frontends ?? [], touched);
    }
    const upsert: FrontendRow[] = [];
    const gone: string[] = [];
    for (const key of touched) {
      const [winner, ...losers] = claims.get(key) ?? [];
      if (winner === undefined) gone.push(key);
      else upsert.push(winner.row);
      if (losers.length > 0)
        losing.set(
          key,
          losers.map((each) => each.owner),
        );
      else losing.delete(key);
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
      if (!losing.get(row.key)?.includes(service)) return [];
      return [`${row.key} is ignored: ${claims.get(row.key)![0]!.owner} has it already`];
    });
    return { service, problems: [...new Set([...result.problems, ...lost])], localReady: result.localReady };
  }

  return {
    run,
    nodeChanged() {
      everything = true;
      run();
    },
    status,
    statuses: () => [...made.keys()].map((key) => status(key)!),
  };
}
