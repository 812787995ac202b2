// Holds a lease of coordination.k8s.io, or waits for it. Every write names the version it replaces, so that the API
// server decides between two who want it; whoever cannot renew in time stops counting on it by its own clock.
import type { Clock } from '../core/clock.ts';
import { errorText } from '../core/errors.ts';
import { hasStatus, type KubeClient } from './client.ts';
import type { LeaseFeed, LeaseNews, LeaseObject } from './lease-feed.ts';
import { heldUntilMs, isNewer, type LeaseSight, type LeaseTerms, nextStep } from './lease-rule.ts';
import { kubernetesResources, resourcePath } from './resource.ts';

/** Time that never jumps, unlike the machine's calendar. */
const steadyClock: Clock = {
  now: () => performance.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Which lease, for whom, and on which terms. */
export interface LeaseOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Whoever wants the lease has another name, also the same program started again. */
  readonly holder: string;
  readonly terms: LeaseTerms;
  /** Tells of changes of the lease. Without one the lease is read every `renewMs`. */
  readonly feed?: LeaseFeed;
  /** Labels of a lease that is made, such as the one the feed selects by. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** Told when the lease is won or lost, when another has it, and when the API server stops or starts answering. */
  readonly onChange?: (state: LeaseState) => void;
}

/** How it stands. */
export interface LeaseState {
  readonly held: boolean;
  /** Who has the lease, as far as is known. */
  readonly holder: string | undefined;
  /** Why the last request failed. */
  readonly error: string | undefined;
}

/** A lease that is held or waited for, until it is released. */
export interface Lease {
  /** Whether one may act now. Looks at the clock: ask right before acting. */
  held(): boolean;
  state(): LeaseState;
  /** Gives the lease back, so that the next has it at once, and waits for it no longer. */
  release(): Promise<void>;
}

/** Wants the lease from now on. */
export function wantLease(options: LeaseOptions): Lease {
  const { client, namespace, name, holder, terms, feed } = options;
  const clock = options.clock ?? steadyClock;
  const path = resourcePath(kubernetesResources.leases, namespace, name);
  const timeoutMs = Math.max(200, terms.durationMs / 2);
  let seen: LeaseSight | undefined;
  let object: LeaseObject | undefined;
  let version: string | undefined;
  let renewedAtMs: number | undefined;
  let error: string | undefined;
  let lookedAtMs = Number.NEGATIVE_INFINITY;
  let told: LeaseState = { held: false, holder: undefined, error: undefined };
  let working: Promise<void> | undefined;
  let closed = false;
  let cancelTurn = () => {};
  let cancelExpiry = () => {};

  const held = () => renewedAtMs !== undefined && clock.now() < heldUntilMs(renewedAtMs, terms);
  const state = (): LeaseState => ({ held: held(), holder: seen?.record?.holder, error });

  function publish(): void {
    const now = state();
    if (now.held === told.held && now.holder === told.holder && now.error === told.error) return;
    told = now;
    options.onChange?.(now);
  }

  /** Takes note of a lease that was read, written or told of. */
  function observe({ lease, version: newVersion }: LeaseNews): void {
    if (newVersion !== undefined && seen !== undefined && !isNewer(newVersion, version)) return;
    // A list without the lease has no version of its own: what was written meanwhile is asked for.
    if (newVersion === undefined && lease === undefined && seen?.record !== undefined) {
      seen = undefined;
      return;
    }
    version = newVersion ?? version;
    object = lease;
    const spec = lease?.spec;
    seen = {
      record: lease && {
        holder: spec?.holderIdentity || undefined,
        durationMs: (spec?.leaseDurationSeconds ?? 1) * 1000,
        version: lease.metadata.resourceVersion ?? '',
      },
      sinceMs: clock.now(),
    };
    // Somebody took it from us, or took it away: whatever is left of our time does not count any more.
    if (seen.record?.holder !== holder) renewedAtMs = undefined;
  }

  /** The lease as it is to be written. */
  function wanted(byWhom: string | undefined): LeaseObject {
    const time = new Date().toISOString().replace('Z', '000Z');
    const before = object?.spec;
    const keeps = before?.holderIdentity === byWhom;
    return {
      ...(object ?? {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name, namespace, labels: options.labels },
      }),
      spec: {
        holderIdentity: byWhom ?? null,
        leaseDurationSeconds: Math.ceil(terms.durationMs / 1000),
        acquireTime: keeps ? before?.acquireTime : time,
        renewTime: time,
        leaseTransitions: (before?.leaseTransitions ?? 0) + (keeps || byWhom === undefined ? 0 : 1),
      },
    };
  }

  async function write(byWhom: string | undefined): Promise<void> {
    const sentAtMs = clock.now();
    const body = wanted(byWhom);
    const lease =
      object === undefined
        ? await client.request<LeaseObject>('POST', resourcePath(kubernetesResources.leases, namespace), {
            body,
            timeoutMs,
          })
        : await client.request<LeaseObject>('PUT', path, { body, timeoutMs });
    observe({ lease, version: lease.metadata.resourceVersion });
    if (seen?.record?.holder !== holder || seen.record.version !== lease.metadata.resourceVersion) return;
    renewedAtMs = sentAtMs;
    cancelExpiry();
    cancelExpiry = clock.after(heldUntilMs(sentAtMs, terms) - clock.now(), publish);
  }

  async function look(): Promise<void> {
    try {
      const lease = await client.request<LeaseObject>('GET', path, { timeoutMs });
      observe({ lease, version: lease.metadata.resourceVersion });
    } catch (failure) {
      if (!hasStatus(failure, 404)) throw failure;
      observe({ lease: undefined, version: undefined });
      seen ??= { record: undefined, sinceMs: clock.now() };
      object = undefined;
      renewedAtMs = undefined;
    }
  }

  /** Takes one step; answers when the next is due. */
  async function turn(): Promise<number> {
    const step = nextStep(holder, seen, terms, renewedAtMs, clock.now());
    if (step.step === 'wait') {
      const waits = seen?.record?.holder !== holder && feed === undefined;
      if (!waits) return step.untilMs;
      if (clock.now() - lookedAtMs < terms.renewMs) return Math.min(step.untilMs, lookedAtMs + terms.renewMs);
    }
    try {
      if (step.step === 'look' || step.step === 'wait') {
        lookedAtMs = clock.now();
        await look();
      } else await write(holder);
      error = undefined;
      return clock.now();
    } catch (failure) {
      if (hasStatus(failure, 409)) {
        // Another was faster, or an answer of ours was lost: see who has it now.
        seen = undefined;
        return clock.now();
      }
      error = errorText(failure);
      // Deleted in between: its version is of no use.
      if (hasStatus(failure, 404)) seen = undefined;
      // Not all at once, when the server is back.
      return clock.now() + (terms.renewMs / 2) * (1 + Math.random());
    }
  }

  function run(): void {
    cancelTurn();
    if (working !== undefined || closed) return;
    working = turn().then((atMs) => {
      working = undefined;
      publish();
      if (!closed) cancelTurn = clock.after(Math.max(0, Math.ceil(atMs - clock.now())), run);
    });
  }

  const unfollow =
    feed?.follow(name, (news) => {
      observe(news);
      publish();
      run();
    }) ?? (() => {});
  run();

  return {
    held,
    state,
    async release() {
      if (closed) return;
      closed = true;
      cancelTurn();
      unfollow();
      await working;
      cancelExpiry();
      const mine = seen?.record?.holder === holder;
      renewedAtMs = undefined;
      // Who cannot be told waits until the lease has run out.
      if (mine) await write(undefined).catch(() => {});
      publish();
    },
  };
}
