// Carries out what the container runtime asks: pods come, are checked, and go. It is the one writer of the endpoints
// table; everything else (addresses, classes, kernel maps, slices) follows from that table.
import { identityKey, identityLabels, reservedIdentities } from '../../core/identity.ts';
import type { EndpointRow, IdentityRow, PodRow } from '../../core/rows.ts';
import type { ReadTable, Table } from '../../core/table.ts';
import type { AddressPool } from '../ipam/address-pool.ts';
import { CniError, type CniRequest, type CniResult, cniCodes, formatResult } from './cni-protocol.ts';
import { formatNote, parseNote } from './device-note.ts';
import type { EndpointStore, SetAside } from './endpoint-store.ts';
import { nodeMac, podMac } from './link-addresses.ts';
import type { PodDevice, PodInterfaces } from './pod-interface.ts';

/** What the manager needs around it. */
export interface EndpointManagerOptions {
  readonly endpoints: Table<EndpointRow, 'container' | 'pod'>;
  readonly pods: ReadTable<PodRow>;
  readonly identities: ReadTable<IdentityRow, 'key'>;
  readonly interfaces: PodInterfaces;
  readonly store: EndpointStore;
  /** The pools of the node's block; empty until the operator has handed one out. */
  readonly pools: () => readonly AddressPool[];
  /** Attaches the datapath to a pod's device, or detaches it. */
  readonly attach: (ifindex: number) => void;
  readonly detach: (ifindex: number) => void;
  /** What the datapath knows of a device from an earlier run. */
  readonly kernelEndpoint: (ifindex: number) => KernelEndpoint | undefined;
  /** Brings the kernel up to date with all tables, now. */
  readonly settle: () => void;
  /** Resolves when the other nodes can know of what `settle` saw, or when that takes too long to wait for. */
  readonly published: () => Promise<void>;
  /** Whether every policy that there is now for pods of a namespace has come; false when that takes too long. */
  readonly policiesReached?: (namespace: string) => Promise<boolean>;
  readonly mtu: () => number;
  readonly ignoredLabels?: readonly string[];
  readonly nowMs?: () => number;
  readonly podWaitMs?: number;
  readonly identityWaitMs?: number;
  readonly onError?: (message: string, error: unknown) => void;
}

/** What an agent before this one left. */
export interface Restored {
  readonly restored: number;
  /** Their devices are gone. */
  readonly gone: readonly EndpointRow[];
  readonly setAside: readonly SetAside[];
  /** Their files could not be read: made again from their devices and from what the kernel knows of them. */
  readonly rebuilt: readonly EndpointRow[];
  /** Nothing could be made of these: their pods have no network any more. */
  readonly unknown: readonly { readonly device: string; readonly why: string }[];
}

/** What the datapath has been told about a device. */
export interface KernelEndpoint {
  readonly identity: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** The runtime's view of the node's pods. */
export interface EndpointManager {
  handle(request: CniRequest): Promise<CniResult | undefined>;
  /** Takes over what an agent before this one left. */
  restore(): Restored;
  /** Deletes by container and interface, as a DEL that was written down while the agent was away. */
  remove(containerId: string, ifname: string): Promise<boolean>;
}

/** The primary index of a container's interface. */
export function containerKey(containerId: string, ifname: string): string {
  return `${containerId}/${ifname}`;
}

/** The identity numbers of a label set, if it has one: the lowest counts. */
function identityOf(identities: ReadTable<IdentityRow, 'key'>, labels: readonly string[]): number | undefined {
  const rows = identities.by('key', identityKey(labels));
  return rows.length === 0 ? undefined : Math.min(...rows.map((row) => row.id));
}

const lastEndpointId = 65_535;

/** Makes a manager. It listens to pods and identities to keep the endpoints' identities right. */
export function createEndpointManager(options: EndpointManagerOptions): EndpointManager {
  const { endpoints, pods, identities, interfaces, store, pools } = options;
  const nowMs = options.nowMs ?? Date.now;
  const podWaitMs = options.podWaitMs ?? 5_000;
  const identityWaitMs = options.identityWaitMs ?? 10_000;
  /** One request per container at a time; others of the same container wait their turn. */
  const turns = new Map<string, Promise<unknown>>();
  const unnamed = new Set<number>();
  let nextId = 1;

  function inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = turns.get(key) ?? Promise.resolve();
    const turn = before.then(work, work);
    const settled = turn.catch(() => {});
    turns.set(key, settled);
    void settled.then(() => turns.get(key) === settled && turns.delete(key));
    return turn;
  }

  function freeId(): number {
    for (let tries = 0; tries < lastEndpointId; tries++) {
      const id = nextId;
      nextId = nextId >= lastEndpointId ? 1 : nextId + 1;
      if (!endpoints.has(id)) return id;
    }
    throw new CniError(
      cniCodes.tryAgain,
      'this node has as many endpoints as there are numbers',
      String(lastEndpointId),
    );
  }

  function labelsOf(pod: PodRow): string[] {
    return identityLabels(
      { namespace: pod.namespace, serviceAccount: pod.serviceAccount, labels: pod.labels },
      options.ignoredLabels,
    );
  }

  function allocate(owner: string): { ipv4?: string; ipv6?: string } {
    const all = pools();
    if (all.length === 0)
      throw new CniError(
        cniCodes.tryAgain,
        'the operator has not given this node a block of addresses yet',
        'Is `weir operator` running?',
      );
    const given: { ipv4?: string; ipv6?: string } = {};
    for (const pool of all) {
      const address = pool.allocate(owner);
      if (address === undefined) {
        for (const each of all) each.release(owner);
        const { used, resting, capacity } = pool.usage();
        throw new CniError(
          cniCodes.addressesExhausted,
          `IPAM_EXHAUSTED: no address is left in ${pool.cidr}`,
          `${used} used, ${resting} resting, of ${capacity}`,
        );
      }
      if (address.includes(':')) given.ipv6 = address;
      else given.ipv4 = address;
    }
    return given;
  }

  function release(owner: string): void {
    for (const pool of pools()) pool.release(owner);
  }

  async function add(request: CniRequest): Promise<CniResult> {
    const owner = containerKey(request.containerId, request.ifname);
    const existing = endpoints.by('container', owner)[0];
    if (existing !== undefined) {
      const problem = interfaces.check(specOf(existing));
      if (existing.netns === request.netns && problem === undefined) return resultOf(request, existing);
      removeEndpoint(existing); // A container that was made anew under its old name, or half of one.
    }
    const pod =
      request.pod === undefined
        ? undefined
        : await waitForPod(request.pod.namespace, request.pod.name, request.pod.uid);
    const policies = request.pod && options.policiesReached?.(request.pod.namespace);
    const id = freeId();
    const addresses = allocate(owner);
    const base: EndpointRow = {
      id,
      containerId: request.containerId,
      namespace: request.pod?.namespace ?? '',
      pod: request.pod?.name ?? request.containerId,
      podUid: request.pod?.uid ?? pod?.uid,
      serviceAccount: pod?.serviceAccount,
      interfaceName: request.ifname,
      ifindex: 0,
      ...addresses,
      mac: '',
      identity: (pod && identityOf(identities, labelsOf(pod))) ?? reservedIdentities.init,
      labels: pod?.labels ?? {},
      namedPorts: pod?.namedPorts ?? [],
      workload: pod?.workload,
      state: 'creating',
      netns: request.netns,
      createdAtMs: nowMs(),
    };
    // Told to the other nodes while the interface is being made: they are to know the pod before it sends.
    endpoints.upsert(base);
    let ifindex = 0;
    try {
      const made = await interfaces.create(
        {
          netns: request.netns,
          ifname: request.ifname,
          hostName: `weir${id}`,
          mtu: request.config.mtu ?? options.mtu(),
          ...addresses,
          note: formatNote(base),
        },
        options.attach,
      );
      ifindex = made.ifindex;
      if (pod !== undefined) await waitForIdentity(pod);
      const current = (pod && pods.get(pod.key)) ?? pod;
      const identity = current && identityOf(identities, labelsOf(current));
      const row: EndpointRow = {
        ...base,
        ifindex: made.ifindex,
        mac: made.mac,
        labels: current?.labels ?? {},
        namedPorts: current?.namedPorts ?? [],
        workload: current?.workload,
        identity: identity ?? reservedIdentities.init,
        state: 'ready',
      };
      // Policies come before the pod's first packet: closed in doubt.
      if (policies !== undefined && !(await policies))
        throw new CniError(
          cniCodes.tryAgain,
          `the policies for pods of ${row.namespace} have not all reached this node yet`,
          'Is the API server reachable from the agent?',
        );
      store.save(row);
      endpoints.upsert(row);
      options.settle();
      // A pod that nobody knows yet is denied where policy names who may come, and its first SYN is lost for a second.
      await options.published();
      return resultOf(request, row);
    } catch (error) {
      removeEndpoint({ ...(endpoints.get(id) ?? base), ifindex });
      throw error;
    }
  }

  function removeEndpoint(row: EndpointRow): void {
    endpoints.delete(row.id);
    options.settle();
    // The kernel takes its time over devices. Nothing leads to this one any more, so nobody has to wait for it; the
    // program goes after the device, for which there is nothing left to do then.
    if (row.ifindex !== 0) {
      interfaces.remove(row.ifindex).then(
        () => options.detach(row.ifindex),
        (error) => options.onError?.('could not remove a device', error),
      );
    }
    release(containerKey(row.containerId, row.interfaceName));
    store.remove(row.id);
  }

  async function waitForPod(namespace: string, name: string, uid?: string): Promise<PodRow> {
    const key = `${namespace}/${name}`;
    const found = () => {
      const pod = pods.get(key);
      return pod !== undefined && (uid === undefined || pod.uid === uid || pod.uid === '') ? pod : undefined;
    };
    const pod = await waitFor(pods, found, podWaitMs);
    if (pod === undefined)
      throw new CniError(
        cniCodes.tryAgain,
        `pod ${key} is not known here yet`,
        'Is the API server reachable from the agent?',
      );
    return pod;
  }

  async function waitForIdentity(pod: PodRow): Promise<void> {
    const found = () => identityOf(identities, labelsOf(pods.get(pod.key) ?? pod));
    if ((await waitFor(identities, found, identityWaitMs)) === undefined)
      throw new CniError(
        cniCodes.tryAgain,
        `pod ${pod.key} has no identity yet`,
        'The operator gives them out: is it running, and are numbers left?',
      );
  }

  function specOf(row: EndpointRow) {
    return {
      netns: row.netns,
      ifname: row.interfaceName,
      mtu: options.mtu(),
      ipv4: row.ipv4,
      ipv6: row.ipv6,
      ifindex: row.ifindex,
      mac: row.mac,
    };
  }

  function resultOf(request: CniRequest, row: EndpointRow): CniResult {
    return formatResult(request.config, {
      hostInterface: `weir${row.id}`,
      hostMac: nodeMac(row.ifindex),
      ifname: row.interfaceName,
      mac: podMac(row.ifindex),
      netns: row.netns,
      mtu: request.config.mtu ?? options.mtu(),
      ipv4: row.ipv4,
      ipv6: row.ipv6,
    });
  }

  async function check(request: CniRequest): Promise<undefined> {
    const row = endpoints.by('container', containerKey(request.containerId, request.ifname))[0];
    if (row === undefined)
      throw new CniError(cniCodes.unknownContainer, 'no such attachment', `${request.containerId} ${request.ifname}`);
    for (const address of [row.ipv4, row.ipv6]) {
      const told = request.config.prevResult?.ips;
      if (address !== undefined && told !== undefined && !told.some((ip) => ip.address.split('/')[0] === address))
        throw new CniError(cniCodes.invalidConfig, 'prevResult does not have the address of this attachment', address);
    }
    const problem = interfaces.check(specOf({ ...row, netns: request.netns }));
    if (problem !== undefined) throw new CniError(cniCodes.kernel, problem, `endpoint ${row.id}`);
  }

  async function collect(request: CniRequest): Promise<undefined> {
    const named = request.config['cni.dev/valid-attachments'];
    // Null is how an empty list of Go arrives. No list at all is a caller who does not know, and not an order to remove all.
    if (named === undefined)
      throw new CniError(
        cniCodes.invalidConfig,
        'GC without cni.dev/valid-attachments would remove every pod',
        'An empty list means none',
      );
    const valid = new Set((named ?? []).map((each) => containerKey(each.containerID, each.ifname)));
    for (const row of [...endpoints.rows()]) {
      const key = containerKey(row.containerId, row.interfaceName);
      if (turns.has(key)) continue; // The runtime made its list before it had the answer for this one.
      if (!valid.has(key)) await inTurn(key, async () => endpoints.has(row.id) && removeEndpoint(row));
    }
  }

  /** Labels, names of ports and identities change while pods live. */
  function refresh(rows: Iterable<EndpointRow>): void {
    const changed: EndpointRow[] = [];
    for (const row of rows) {
      const pod = pods.get(`${row.namespace}/${row.pod}`);
      if (pod === undefined || row.state === 'creating') continue;
      // A pod made anew under its old name, while a container of the old one still runs: that one stays who it was.
      if (row.podUid !== undefined && pod.uid !== '' && pod.uid !== row.podUid) continue;
      const identity = identityOf(identities, labelsOf(pod));
      // The old identity stands until the new one has a number: nothing opens or closes by accident in between.
      changed.push({
        ...row,
        labels: pod.labels,
        namedPorts: pod.namedPorts,
        workload: pod.workload,
        identity: identity ?? row.identity,
        serviceAccount: pod.serviceAccount,
      });
    }
    for (const row of changed) {
      const before = endpoints.get(row.id);
      endpoints.upsert(row);
      if (before !== endpoints.get(row.id)) store.save(row);
    }
  }
  /** Names that a note had no room for. */
  function findNames(): void {
    for (const id of unnamed) {
      const row = endpoints.get(id);
      const pod = row && [...pods.rows()].find((each) => each.uid === row.podUid);
      if (row !== undefined && pod === undefined) continue;
      unnamed.delete(id);
      if (row === undefined || pod === undefined) continue;
      const named = { ...row, namespace: pod.namespace, pod: pod.name };
      endpoints.upsert(named);
      store.save(named);
      refresh([named]);
    }
  }
  pods.subscribe(findNames);
  pods.subscribe((set) => refresh(set.changes.flatMap((change) => endpoints.by('pod', change.key))));
  identities.subscribe(() => refresh([...endpoints.rows()]));

  return {
    handle(request) {
      const key = containerKey(request.containerId, request.ifname);
      switch (request.command) {
        case 'ADD':
          return inTurn(key, () => add(request));
        case 'DEL':
          return inTurn(key, async () => {
            const row = endpoints.by('container', key)[0];
            if (row !== undefined) removeEndpoint(row);
            return undefined;
          });
        case 'CHECK':
          return inTurn(key, () => check(request));
        case 'GC':
          return collect(request);
        case 'STATUS':
        case 'VERSION':
          return Promise.resolve(undefined);
      }
    },
    remove: (containerId, ifname) =>
      inTurn(containerKey(containerId, ifname), async () => {
        const row = endpoints.by('container', containerKey(containerId, ifname))[0];
        if (row !== undefined) removeEndpoint(row);
        return row !== undefined;
      }),
    restore() {
      const { rows, setAside, lost } = store.load();
      const devices = new Map(interfaces.devices().map((device) => [device.hostName, device]));
      const rebuilt: EndpointRow[] = [];
      const unknown: { device: string; why: string }[] = [];
      for (const device of lost ? devices.values() : setAside.flatMap(({ id }) => devices.get(`weir${id}`) ?? [])) {
        const row = rebuild(device);
        if (typeof row === 'string') unknown.push({ device: device.hostName, why: row });
        else rebuilt.push(row);
      }
      const known = new Set([...rows, ...rebuilt].map((row) => row.ifindex));
      interfaces.prune(known, (error) => options.onError?.('could not remove a device', error));
      const gone: EndpointRow[] = [];
      const kept: EndpointRow[] = [];
      for (const row of [...rows, ...rebuilt]) {
        nextId = Math.max(nextId, row.id + 1);
        const device = devices.get(`weir${row.id}`);
        if (row.ifindex === 0 || device?.ifindex !== row.ifindex) {
          gone.push(row);
          store.remove(row.id);
          continue;
        }
        kept.push({ ...row, state: 'ready' });
        const note = formatNote(row);
        if (row.pod !== '' && note !== undefined && device.note !== note) interfaces.setNote(row.ifindex, note);
      }
      if (nextId > lastEndpointId) nextId = 1;
      endpoints.upsert(kept);
      endpoints.markInitialized();
      for (const row of rebuilt) {
        store.save(row);
        if (row.pod === '') unnamed.add(row.id);
      }
      findNames();
      refresh(kept); // Pods and identities may be known already.
      return { restored: kept.length, gone, setAside, rebuilt, unknown };
    },
  };

  /** The endpoint of a device whose file is lost, or why there is none to be had. */
  function rebuild(device: PodDevice): EndpointRow | string {
    const note = parseNote(device.note);
    if (note === undefined) return 'no note at the device says whose it is';
    const known = options.kernelEndpoint(device.ifindex);
    if (known === undefined) return 'the datapath has no row for the device';
    const { identity, ipv4, ipv6 } = known;
    const row: EndpointRow = {
      id: Number(device.hostName.slice('weir'.length)),
      ...note,
      namespace: note.namespace ?? '',
      pod: note.pod ?? '',
      ifindex: device.ifindex,
      ipv4,
      ipv6,
      mac: podMac(device.ifindex),
      identity,
      labels: {},
      namedPorts: [],
      state: 'ready',
      createdAtMs: nowMs(),
    };
    try {
      return interfaces.check(specOf(row)) ?? row;
    } catch (error) {
      return error instanceof CniError ? `${error.message} (${error.details})` : (error as Error).message;
    }
  }
}

/** Waits until `found` answers, looking again whenever the table changes. */
function waitFor<T>(
  table: { subscribe(listener: () => void): () => void },
  found: () => T | undefined,
  timeoutMs: number,
): Promise<T | undefined> {
  const now = found();
  if (now !== undefined) return Promise.resolve(now);
  return new Promise((resolve) => {
    const done = (value: T | undefined) => {
      clearTimeout(timer);
      stop();
      resolve(value);
    };
    const timer = setTimeout(() => done(undefined), timeoutMs);
    const stop = table.subscribe(() => {
      const value = found();
      if (value !== undefined) done(value);
    });
  });
}
