// The agent's heart: brings the kernel in step with the tables. Tables of what is known → addresses → compiled policy →
// maps, in one pass and in the one order in which no packet meets half of it. Nothing is written before every source
// has been read once: until then the kernel goes on with what it has. A pass in which the compiler fails leaves it with half
// of what changed: everything is compiled and compared with the kernel again, as after a start.
import type { createAddressDerivation } from '../../connect/addresses/derive-addresses.ts';
import type { DatapathWriter } from '../../connect/datapath/datapath-writer.ts';
import { errorText } from '../../core/errors.ts';
import type { AddressRow, EndpointRow, IdentityRow, NamespaceRow, PolicyRow, PrefixRow } from '../../core/rows.ts';
import type { ReadTable, Table } from '../../core/table.ts';
import type { PolicyCompiler } from '../../secure/policy/compile.ts';
import type { PolicyDelta } from '../../secure/policy/policy-delta.ts';

/** The tables that the pass reads, and the two that it derives. */
export interface SyncTables {
  readonly endpoints: ReadTable<EndpointRow>;
  readonly identities: ReadTable<IdentityRow>;
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly policies: ReadTable<PolicyRow>;
  readonly prefixes: ReadTable<PrefixRow>;
  readonly addresses: Table<AddressRow>;
}

/** Keeps the kernel in step. */
export interface KernelSync {
  /** Runs the pass now. */
  settle(): void;
  /** Runs it soon, once for all changes until then. */
  schedule(): void;
  /** The first complete state is in the kernel. */
  readonly synced: boolean;
  /** A pass is due: a table has changed since the last one, or that one failed. */
  readonly pending: boolean;
  /** Why the last pass failed; undefined when it did not. */
  readonly error: string | undefined;
  whenSynced(timeoutMs: number): Promise<boolean>;
  /** How long the last passes took, in ms. */
  readonly lastMs: number;
  readonly passes: number;
}

/** Follows a table: what changed since the last pass that succeeded. */
function follow<R>(table: ReadTable<R>) {
  let seen = 0;
  let looked = 0;
  return {
    take() {
      const set = table.changesSince(seen);
      looked = set.revision;
      return set;
    },
    commit() {
      seen = looked;
    },
    /** The next look finds everything. */
    restart() {
      seen = 0;
    },
  };
}

const retryMs = 1_000;
/** A pass that fails again and again is tried after twice as long each time, up to this. */
const longestRetryMs = 60_000;

/** Makes the pass. `onError` gets what should not happen; the next change tries again. */
export function createKernelSync(options: {
  readonly tables: SyncTables;
  readonly addressDerivation: ReturnType<typeof createAddressDerivation>;
  readonly compiler: PolicyCompiler;
  readonly writer: DatapathWriter;
  readonly onApplied: () => void;
  readonly onError: (error: unknown) => void;
}): KernelSync {
  const { tables, compiler, writer } = options;
  const changes = {
    endpoints: follow(tables.endpoints),
    identities: follow(tables.identities),
    namespaces: follow(tables.namespaces),
    policies: follow(tables.policies),
    prefixes: follow(tables.prefixes),
    addresses: follow(tables.addresses),
  };
  const sources: ReadTable<unknown>[] = [
    tables.endpoints,
    tables.identities,
    tables.namespaces,
    tables.policies,
    tables.prefixes,
  ];
  /** Devices whose rows are in the kernel. */
  const written = new Map<number, EndpointRow>();
  let synced = false;
  let scheduled = false;
  let settling = false;
  let error: string | undefined;
  let failures = 0;
  /** The next pass builds on no earlier one; and whether there was any. */
  let whole = true;
  let begun = false;
  /** What the compiler said and could not be written: it does not say so twice. */
  let unapplied: PolicyDelta | undefined;
  let lastMs = 0;
  let passes = 0;
  const waiting = new Set<() => void>();

  function settle(): void {
    scheduled = false;
    if (settling) {
      schedule();
      return;
    }
    settling = true;
    const started = performance.now();
    try {
      options.addressDerivation.run();
      if (!tables.addresses.initialized || !sources.every((table) => table.initialized)) return;
      if (whole && begun) {
        compiler.restart();
        writer.restart();
        unapplied = undefined;
        for (const each of Object.values(changes)) each.restart();
      }
      const endpoints = changes.endpoints.take();
      const kept = new Map<number, EndpointRow>();
      for (const row of tables.endpoints.rows()) if (row.ifindex !== 0) kept.set(row.ifindex, row);
      // A device's row comes before its address has a class, and goes after: its packets are told apart to the end.
      for (const { after } of endpoints.changes) {
        if (after !== undefined && after.ifindex !== 0) {
          writer.putEndpoint(after);
          written.set(after.ifindex, after);
        }
      }
      if (unapplied !== undefined) {
        writer.apply(unapplied);
        unapplied = undefined; // Also when the compiler fails: old rows must not come after newer ones.
      }
      const everything = whole;
      whole = true; // Unless it succeeds.
      begun = true;
      unapplied = compiler.update({
        identities: changes.identities.take(),
        namespaces: changes.namespaces.take(),
        policies: changes.policies.take(),
        prefixes: changes.prefixes.take(),
        addresses: changes.addresses.take(),
      });
      whole = everything;
      writer.apply(unapplied);
      unapplied = undefined;
      if (endpoints.changes.length > 0 || endpoints.resync) {
        for (const [ifindex, row] of written) {
          if (kept.has(ifindex)) continue;
          writer.removeEndpoint(row);
          written.delete(ifindex);
        }
      }
      for (const each of Object.values(changes)) each.commit();
      if (whole) {
        writer.prune();
        writer.raiseAll(); // What an agent before us did not live to announce.
        synced = true;
        whole = false;
        for (const wake of waiting) wake();
        waiting.clear();
      }
      error = undefined;
      failures = 0;
      passes++;
      lastMs = performance.now() - started;
      options.onApplied();
    } catch (thrown) {
      error = errorText(thrown);
      options.onError(thrown);
      // Nothing was taken as done: the same changes are applied again.
      setTimeout(schedule, Math.min(longestRetryMs, retryMs * 2 ** failures++)).unref();
    } finally {
      settling = false;
    }
  }

  function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => scheduled && settle());
  }

  return {
    settle,
    schedule,
    get synced() {
      return synced;
    },
    get pending() {
      return scheduled || error !== undefined;
    },
    get error() {
      return error;
    },
    whenSynced(timeoutMs) {
      if (synced) return Promise.resolve(true);
      return new Promise((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          resolve(true);
        };
        const timer = setTimeout(() => {
          waiting.delete(wake);
          resolve(false);
        }, timeoutMs);
        waiting.add(wake);
      });
    },
    get lastMs() {
      return lastMs;
    },
    get passes() {
      return passes;
    },
  };
}
