// One watch for any number of leases: who waits for one hears at once that it was given back, and asks for nothing meanwhile.
import type { KubeClient } from './client.ts';
import { type KubeObject, kubernetesResources } from './resource.ts';
import { type WatchState, watch } from './watch.ts';

/** A Lease of coordination.k8s.io/v1. */
export interface LeaseObject extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string | null;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

/** What is told of a lease: how it is now, or that it is not there, as of `version`. */
export type LeaseNews = { readonly lease: LeaseObject | undefined; readonly version: string | undefined };

/** Follows the leases of a namespace. */
export interface LeaseFeed {
  /** Calls `listener` with what is known, if anything, and then whenever that lease changes. Answers how to stop. */
  follow(name: string, listener: (news: LeaseNews) => void): () => void;
  stop(): void;
}

/** Starts following. With `name` only that one lease, else those that `labelSelector` selects. */
export function followLeases(
  client: KubeClient,
  namespace: string,
  options: { name?: string; labelSelector?: string; onState?: (state: WatchState) => void } = {},
): LeaseFeed {
  const known = new Map<string, LeaseObject>();
  const listeners = new Map<string, Set<(news: LeaseNews) => void>>();
  let listed = false;
  const tell = (name: string, news: LeaseNews) => {
    for (const listener of listeners.get(name) ?? []) listener(news);
  };
  const newsOf = (lease: LeaseObject): LeaseNews => ({ lease, version: lease.metadata.resourceVersion });
  const running = watch<LeaseObject>(
    client,
    kubernetesResources.leases,
    {
      list(items) {
        known.clear();
        for (const item of items) known.set(item.metadata.name, item);
        listed = true;
        for (const name of listeners.keys()) {
          const lease = known.get(name);
          tell(name, lease === undefined ? { lease, version: undefined } : newsOf(lease));
        }
      },
      upsert(item) {
        known.set(item.metadata.name, item);
        tell(item.metadata.name, newsOf(item));
      },
      delete(item) {
        known.delete(item.metadata.name);
        tell(item.metadata.name, { lease: undefined, version: item.metadata.resourceVersion });
      },
    },
    {
      namespace,
      fieldSelector: options.name === undefined ? undefined : `metadata.name=${options.name}`,
      labelSelector: options.labelSelector,
      onState: options.onState,
    },
  );
  return {
    follow(name, listener) {
      const own = listeners.get(name) ?? new Set();
      own.add(listener);
      listeners.set(name, own);
      const lease = known.get(name);
      if (lease !== undefined) listener(newsOf(lease));
      else if (listed) listener({ lease: undefined, version: undefined });
      return () => {
        own.delete(listener);
        if (own.size === 0) listeners.delete(name);
      };
    },
    stop: () => running.stop(),
  };
}
