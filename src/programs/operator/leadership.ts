// One operator of a cluster works, the others wait. Work begins anew with each term of office and ends with it.

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { KubeClient } from '../../kube/client.ts';
import { wantLease } from '../../kube/lease.ts';
import { followLeases } from '../../kube/lease-feed.ts';
import type { Log } from '../log.ts';

/** Where the lease is, and how long it lasts. */
export interface LeadershipOptions {
  readonly client: KubeClient;
  readonly log: Log;
  readonly namespace: string;
  readonly leaseMs: number;
}

const leaseName = 'weir-operator';

/** Runs `lead` while this operator leads, until the signal aborts. `mayAct` is to be asked before each write. */
export async function whileLeading(
  options: LeadershipOptions,
  lead: (term: AbortSignal, mayAct: () => boolean) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { client, log, namespace, leaseMs } = options;
  const me = `${hostname()}_${process.pid}_${randomUUID().slice(0, 8)}`;
  const feed = followLeases(client, namespace, { name: leaseName });
  let wake = () => {};
  let waitsFor: string | undefined;
  let problem: string | undefined;
  const lease = wantLease({
    client,
    namespace,
    name: leaseName,
    holder: me,
    terms: { durationMs: leaseMs, renewMs: leaseMs / 3 },
    feed,
    onChange(state) {
      if (state.error !== undefined && problem === undefined)
        log.warn('the lease cannot be had', { error: state.error });
      problem = state.error;
      if (!state.held && state.holder !== undefined && state.holder !== me && state.holder !== waitsFor) {
        waitsFor = state.holder;
        log.info('another operator leads: waiting', { holder: state.holder, lease: `${namespace}/${leaseName}` });
      }
      wake();
    },
  });
  const changed = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  signal.addEventListener('abort', () => wake());
  while (!signal.aborted) {
    if (!lease.held()) {
      await changed();
      continue;
    }
    log.info('this operator leads', { holder: me, lease: `${namespace}/${leaseName}` });
    waitsFor = undefined;
    const term = new AbortController();
    const running = lead(term.signal, lease.held).catch((error: Error) => {
      if (!term.signal.aborted) log.error('the operator failed', { error: error.message, stack: error.stack });
      term.abort();
    });
    while (!signal.aborted && !term.signal.aborted && lease.held()) await changed();
    const lost = !signal.aborted && !lease.held();
    term.abort();
    await running;
    if (lost) log.warn('this operator does not lead any more', { holder: lease.state().holder, error: problem });
    else if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  feed.stop();
  await lease.release();
}
