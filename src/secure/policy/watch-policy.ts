// Runs the compiler on tables: once per round of changes, when all sources have given their first full list.
import type { AddressRow, IdentityRow, NamespaceRow, NetworkPolicyRow, PrefixRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { PolicyCompiler } from './compile.ts';
import type { Changes, PolicyDelta } from './policy-delta.ts';

// biome-ignore lint/suspicious/noExplicitAny: the indexes of the sources do not matter here
type Source<R> = ReadTable<R, any>;

/** The tables that policy is made from. */
export interface PolicySources {
  readonly identities: Source<IdentityRow>;
  readonly namespaces: Source<NamespaceRow>;
  readonly addresses: Source<AddressRow>;
  readonly prefixes: Source<PrefixRow>;
  readonly policies: Source<NetworkPolicyRow>;
}

/** A running compilation. */
export interface PolicyWatch {
  /** Whether everything was compiled at least once: then the compiler's rows are all that should be in the kernel. */
  readonly complete: boolean;
  /** Compiles now what has changed, and ends the rest of old numbers and cookies. Call it now and then when idle. */
  flush(): void;
  stop(): void;
}

/** Compiles changes of the sources in a microtask after they came, and hands on what to write. */
export function watchPolicy(
  sources: PolicySources,
  compiler: PolicyCompiler,
  write: (delta: PolicyDelta) => void,
): PolicyWatch {
  const seen = new Map<object, number>();
  let scheduled = false;
  let stopped = false;
  let complete = false;

  function since<R>(table: Source<R>): Changes<R> {
    const set = table.changesSince(seen.get(table) ?? 0);
    seen.set(table, set.revision);
    return set;
  }

  function flush(): void {
    scheduled = false;
    if (stopped || !Object.values(sources).every((table: Source<unknown>) => table.initialized)) return;
    const delta = compiler.update({
      identities: since(sources.identities),
      namespaces: since(sources.namespaces),
      addresses: since(sources.addresses),
      prefixes: since(sources.prefixes),
      policies: since(sources.policies),
    });
    complete = true;
    write(delta);
  }

  function schedule(): void {
    if (scheduled || stopped) return;
    scheduled = true;
    queueMicrotask(flush);
  }

  const stops = Object.values(sources).map((table: Source<unknown>) => table.subscribe(schedule));
  schedule();
  return {
    get complete() {
      return complete;
    },
    flush,
    stop() {
      stopped = true;
      for (const stop of stops) stop();
    },
  };
}
