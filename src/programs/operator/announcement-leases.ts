// Clears away leases of announcements that nobody has renewed for long: each address of a service with the external traffic
// policy Local has one, and addresses come and go.
import { errorText } from '../../core/errors.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import type { LeaseObject } from '../../kube/lease-feed.ts';
import { kubernetesResources } from '../../kube/resource.ts';
import type { Log } from '../log.ts';

/** What it needs of the operator. */
export interface LeaseClearingOptions {
  readonly client: KubeClient;
  readonly log: Log;
  /** Asked before each write. */
  readonly mayAct: () => boolean;
}

const namespace = 'weir-announce';
const labelSelector = 'weir.dev/announce';
const intervalMs = 10 * 60_000;
/** Written by other machines' clocks, so with room for their difference. Who still wants a lease that is gone makes it again. */
const restMs = 60 * 60_000;

/** Looks every ten minutes until the signal aborts. */
export function clearLeases(options: LeaseClearingOptions, signal: AbortSignal): void {
  const { client, log } = options;
  const timer = setInterval(() => {
    clearOldLeases(options, Date.now()).catch((error) => {
      if (!signal.aborted) log.warn('could not clear away leases of announcements', { error: errorText(error) });
    });
  }, intervalMs);
  signal.addEventListener('abort', () => clearInterval(timer));
  async function clearOldLeases({ mayAct }: LeaseClearingOptions, nowMs: number): Promise<void> {
    const { items } = await client.list<LeaseObject>(kubernetesResources.leases, {
      namespace,
      query: { labelSelector },
    });
    for (const lease of oldLeases(items, nowMs)) {
      if (!mayAct()) return;
      try {
        await client.deleteExactly(kubernetesResources.leases, lease);
        log.info('a lease of an announcement is cleared away', { lease: lease.metadata.name });
      } catch (error) {
        if (!hasStatus(error, 404) && !hasStatus(error, 409)) throw error;
      }
    }
  }
}

/** Those that were renewed so long ago that nobody has them. */
export function oldLeases(leases: readonly LeaseObject[], nowMs: number): LeaseObject[] {
  return leases.filter((lease) => {
    const renewedMs = Date.parse(lease.spec?.renewTime ?? '');
    return Number.isFinite(renewedMs) && nowMs - renewedMs > restMs;
  });
}
