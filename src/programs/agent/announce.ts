// Announces the addresses of services on the networks that this node is on: what has to be announced follows from the
// frontends, and who does it is decided by leases that all agents want.
import { createAnnouncementPort } from '../../connect/announce/announcement-port.ts';
import { type AnnouncementStatus, createAnnouncer } from '../../connect/announce/announcer.ts';
import { type Claim, claimsOf, isAnnounced, type OnLink } from '../../connect/announce/claims.ts';
import { systemClock } from '../../core/clock.ts';
import { deepEqual } from '../../core/equal.ts';
import { errorText } from '../../core/errors.ts';
import { canonicalIp } from '../../core/ip.ts';
import type { FrontendRow, NodeRow } from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import { listAddresses } from '../../kernel/addresses.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { getLink } from '../../kernel/links.ts';
import type { Netlink } from '../../kernel/netlink.ts';
import type { KubeClient } from '../../kube/client.ts';
import { wantLease } from '../../kube/lease.ts';
import { followLeases, type LeaseFeed } from '../../kube/lease-feed.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type WatchState, watchIntoTable } from '../../kube/watch.ts';
import type { Log } from '../log.ts';
import type { AgentSettings } from './settings.ts';
import { trafficDevices } from './traffic-devices.ts';

/** Announcing as the agent runs it. */
export interface Announcing {
  status(): AnnouncementStatus[];
  stop(): Promise<void>;
}

/** What it needs of the rest of the agent. */
export interface AnnounceInputs {
  readonly client: KubeClient;
  readonly settings: AgentSettings;
  readonly log: Log;
  readonly netlink: Netlink;
  /** The datapath's map `announced`. */
  readonly map: BpfMap;
  readonly frontends: ReadTable<FrontendRow>;
  readonly nodes: ReadTable<NodeRow>;
  readonly hostAddresses: ReadTable<{ address: string }>;
  readonly onState: (state: WatchState) => void;
}

/** By this label Kubernetes says that a node is not to take traffic from outside. */
const excludeLabel = 'node.kubernetes.io/exclude-from-external-load-balancers';
/** Where the leases are: agents may write leases there and nowhere else. */
const leaseNamespace = 'weir-announce';
const leaseLabel = 'weir.dev/announce';
/** The shortest that a lease can be written. Another node answers in less than two seconds. */
const terms = { durationMs: 1_000, renewMs: 333 };

/** Starts announcing. */
export function startAnnouncing(inputs: AnnounceInputs): Announcing {
  const { client, settings, log, netlink, frontends, nodes, hostAddresses } = inputs;
  const port = createAnnouncementPort(inputs.map);
  let feed: LeaseFeed | undefined;
  const troubled = new Map<string, string>();

  const announcer = createAnnouncer({
    node: settings.nodeName,
    nodes: () => [...nodes.rows()].map((row) => row.name),
    devices() {
      return [...trafficDevices(netlink, settings.devices).values()].flatMap((ifindex) => {
        const link = getLink(netlink, ifindex);
        return link?.up ? link : [];
      });
    },
    port,
    wantLease(name, onChange) {
      // Only who has something to announce follows the leases.
      feed ??= followLeases(client, leaseNamespace, {
        labelSelector: leaseLabel,
        onState: inputs.onState,
      });
      return wantLease({
        client,
        namespace: leaseNamespace,
        name,
        holder: settings.nodeName,
        labels: { [leaseLabel]: 'l2' },
        terms,
        feed,
        onChange(state) {
          if (state.error === undefined) troubled.delete(name);
          else if (!troubled.has(name)) {
            troubled.set(name, state.error);
            if (troubled.size === 1)
              log.warn('who announces addresses cannot be decided', { lease: name, error: state.error });
          }
          onChange();
        },
      });
    },
    clock: systemClock,
    onError: (message, error) => log.warn(message, { error: errorText(error) }),
    onChange: (address, stands) =>
      log.info(stands ? 'this node announces an address' : 'this node does not announce an address any more', {
        address,
      }),
  });

  const self = createTable<{ name: string; excluded: boolean }>({ name: 'own-node', key: (row) => row.name });
  const selfWatch = watchIntoTable<KubeObject, { name: string; excluded: boolean }>(
    client,
    kubernetesResources.nodes,
    self,
    ({ metadata }) => ({ name: metadata.name, excluded: excludeLabel in (metadata.labels ?? {}) }),
    { fieldSelector: `metadata.name=${settings.nodeName}`, onState: inputs.onState },
  );

  /** Subnets of the devices, without what is ours. */
  function onLink(): OnLink[] {
    const wanted = new Set(trafficDevices(netlink, settings.devices).values());
    return listAddresses(netlink).flatMap(({ ifindex, address, prefixBits, scope }) => {
      const cidr = wanted.has(ifindex) && scope === 'global' ? canonicalIp(`${address}/${prefixBits}`) : undefined;
      return cidr === undefined ? [] : [{ ifindex, cidr }];
    });
  }

  /** Frontends that have to do with it, kept by what changes: there may be very many others. */
  const relevant = new Map<string, FrontendRow>();
  let seen = 0;
  function takeChanges(): boolean {
    const set = frontends.changesSince(seen);
    seen = set.revision;
    if (set.resync) relevant.clear();
    let changed = set.resync;
    for (const { key, after } of set.changes) {
      const is = after !== undefined && isAnnounced(after, settings.announce === 'l2-all');
      changed ||= is || relevant.has(String(key));
      if (is) relevant.set(after.key, after);
      else relevant.delete(String(key));
    }
    return changed;
  }

  let links: readonly OnLink[] = [];
  let claims: readonly Claim[] | undefined;
  let scheduled = false;
  let linksChanged = true;
  let selfChanged = false;
  const schedule = () => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      // Before everything is known absence means nothing: what an earlier run announced goes on.
      if (!frontends.initialized || !nodes.initialized || !self.initialized) return;
      try {
        const changed = takeChanges() || linksChanged || selfChanged;
        if (claims !== undefined && !changed) return;
        if (linksChanged) links = onLink();
        const now = self.get(settings.nodeName)?.excluded ? [] : claimsOf(relevant.values(), links);
        if (claims === undefined || !deepEqual(now, claims)) announcer.update(now);
        claims = now;
        if (linksChanged) announcer.devicesChanged();
        linksChanged = false;
        selfChanged = false;
      } catch (error) {
        log.error('could not announce addresses', { error: errorText(error) });
      }
    });
  };
  const unsubscribe = [
    self.subscribe(() => {
      selfChanged = true;
      schedule();
    }),
    frontends.subscribe(schedule),
    nodes.subscribe(schedule),
    hostAddresses.subscribe(() => {
      linksChanged = true;
      schedule();
    }),
  ];
  schedule();

  return {
    status: announcer.status,
    async stop() {
      for (const each of unsubscribe) each();
      await announcer.stop();
      feed?.stop();
      selfWatch.stop();
      port.close();
    },
  };
}
