// Stands for addresses on the local network while this node has their lease: tells the kernel which questions to answer,
// and the network where the addresses are now. What the kernel was told lapses unless it is renewed, so that a node whose
// agent is gone for good falls silent; a short absence of the agent, or of the API server, changes nothing.
import type { Clock } from '../../core/clock.ts';
import { type Claim, rankOf } from './claims.ts';

/** A device that the local network sees. */
export interface AnnouncingDevice {
  readonly ifindex: number;
  /** Such as 02:00:00:00:00:01. */
  readonly mac: string;
}

/** What the kernel is to answer, and how it is told. */
export interface AnnouncementPort {
  /** The entries there are. */
  list(): { readonly address: string; readonly ifindex: number }[];
  put(address: string, device: AnnouncingDevice, lastsMs: number): void;
  remove(address: string, ifindex: number): void;
  /** Tells the network that the address is here now. */
  tell(address: string, device: AnnouncingDevice): void;
}

/** A lease as seen from here; the shape of src/kube/lease.ts. */
interface HeldLease {
  state(): { readonly held: boolean; readonly holder: string | undefined; readonly error: string | undefined };
  release(): Promise<void>;
}

/** What an announcer needs. */
export interface AnnouncerOptions {
  readonly node: string;
  readonly nodes: () => Iterable<string>;
  readonly devices: () => readonly AnnouncingDevice[];
  readonly port: AnnouncementPort;
  readonly wantLease: (name: string, onChange: () => void) => HeldLease;
  readonly clock: Clock;
  readonly onError: (message: string, error: unknown) => void;
  readonly onChange: (address: string, stands: boolean) => void;
}

/** How it stands with an address. */
export interface AnnouncementStatus extends Claim {
  /** This node answers for it. */
  readonly here: boolean;
  /** The node that does, as far as is known. */
  readonly leader: string | undefined;
  readonly error: string | undefined;
}

/** A running announcer. */
export interface Announcer {
  /** These are the claims from now on. */
  update(claims: readonly Claim[]): void;
  /** Devices or their addresses have changed. */
  devicesChanged(): void;
  status(): AnnouncementStatus[];
  /** Lets others take over at once. */
  stop(): Promise<void>;
}

const refreshMs = 3_000;
const lastsMs = 10_000;
/** Others have taken over long before that. */
const farewellMs = 1_000;
/** Network gear may lose the first word, or be busy with the change of the link that caused it. */
const repeatAfterMs = [100, 300, 1_000, 3_000];
/** So long others have to take over what this node would rather not have. */
const yieldMs = 1_000;
const headStartMs = 100;
const maxHeadStarts = 4;

interface Stand {
  readonly lease: HeldLease | undefined;
  leads: boolean;
  /** Others were let go first, and it is not known yet whether one has. */
  yielding: boolean;
  cancel: () => void;
}

/** Starts with no claims: what an earlier run told the kernel stays until the first update. */
export function createAnnouncer(options: AnnouncerOptions): Announcer {
  const { node, port, clock, onError } = options;
  let claims = new Map<string, Claim>();
  const stands = new Map<string, Stand>();
  const standing = new Set<string>();
  const repeats = new Map<string, () => void>();
  let stopped = false;
  let cancelRefresh = () => {};
  let cancelSoon: (() => void) | undefined;

  /** `leads`: this node stood so far, and goes on until another does. */
  function wish(name: string, yields: boolean, leads = false): void {
    const headStarts = Math.min(rankOf(name, node, options.nodes()), maxHeadStarts);
    const begin = () => {
      const lease = options.wantLease(name, () => decide(name));
      stands.set(name, { lease, leads, yielding: leads, cancel: () => {} });
      decide(name);
    };
    const waitMs = headStarts * headStartMs + (yields ? yieldMs : 0);
    if (waitMs === 0) begin();
    else stands.set(name, { lease: undefined, leads, yielding: leads, cancel: clock.after(waitMs, begin) });
  }

  /** Lets others take a lease, and wants it again when nobody did. */
  function giveWay(name: string, stand: Stand): void {
    stand.cancel();
    wish(name, true, stand.leads);
    void stand.lease?.release();
  }

  /**
   * Once this node has stood it goes on until it sees another with the lease. That it cannot renew it (the API server is
   * away) is no reason: nobody else can have it then, and if one can, the node that took it last is heard last.
   */
  function decide(name: string): void {
    const stand = stands.get(name);
    if (stopped || stand?.lease === undefined) return;
    const state = stand.lease.state();
    const nobodyYet = stand.yielding && state.holder === undefined;
    stand.leads = state.held || (stand.leads && (state.holder === node || nobodyYet));
    stand.yielding &&= nobodyYet;
    soon();
  }

  /** At a start many leases are won at once. */
  function soon(): void {
    cancelSoon ??= clock.after(0, () => {
      cancelSoon = undefined;
      if (!stopped) sync();
    });
  }

  /** Brings the kernel in step. Everything is written again: an entry's time runs. */
  function sync(): void {
    const wanted = new Set<string>();
    const led = [...claims.values()].filter((claim) => stands.get(claim.lease)?.leads === true);
    // Nearly always there is nothing: then the kernel is asked for nothing either.
    const devices = led.length === 0 ? [] : options.devices();
    for (const claim of led) {
      for (const device of devices.filter((each) => claim.devices.includes(each.ifindex))) {
        wanted.add(`${device.ifindex} ${claim.address}`);
        attempt(`could not announce ${claim.address}`, () => port.put(claim.address, device, lastsMs));
      }
    }
    const undecided = (address: string) => {
      const claim = claims.get(address);
      const stand = claim && stands.get(claim.lease);
      return stand !== undefined && (stand.lease === undefined || stand.lease.state().holder === undefined);
    };
    // What an earlier run stood for goes on until it is known who stands for it now.
    for (const { address, ifindex } of port.list())
      if (!wanted.has(`${ifindex} ${address}`) && !undecided(address))
        attempt(`could not withdraw ${address}`, () => port.remove(address, ifindex));
    for (const claim of claims.values()) {
      const leads = stands.get(claim.lease)?.leads === true;
      if (leads === standing.has(claim.address)) continue;
      if (leads) begin(claim.address);
      else end(claim.address);
    }
    for (const address of standing) if (!claims.has(address)) end(address);
  }

  function begin(address: string): void {
    standing.add(address);
    tell(address, 0);
    options.onChange(address, true);
  }

  function end(address: string): void {
    standing.delete(address);
    repeats.get(address)?.();
    repeats.delete(address);
    options.onChange(address, false);
  }

  const devicesOf = (address: string) =>
    options.devices().filter((each) => claims.get(address)?.devices.includes(each.ifindex));

  function tell(address: string, round: number): void {
    for (const device of devicesOf(address))
      attempt(`could not tell the network of ${address}`, () => port.tell(address, device));
    const afterMs = repeatAfterMs[round];
    if (afterMs === undefined) repeats.delete(address);
    else
      repeats.set(
        address,
        clock.after(afterMs, () => tell(address, round + 1)),
      );
  }

  function attempt(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      onError(what, error);
    }
  }

  function refresh(): void {
    sync();
    cancelRefresh = clock.after(refreshMs, refresh);
  }

  return {
    update(list) {
      if (stopped) return;
      const yielded = new Set([...claims.values()].flatMap((claim) => (claim.yields ? claim.lease : [])));
      claims = new Map(list.map((claim) => [claim.address, claim]));
      const names = new Map(list.map((claim) => [claim.lease, claim.yields]));
      for (const [name, stand] of stands) {
        if (names.has(name)) continue;
        stand.cancel();
        stands.delete(name);
        void stand.lease?.release();
      }
      for (const [name, yields] of names) {
        const stand = stands.get(name);
        if (stand === undefined) wish(name, yields);
        else if (yields && !yielded.has(name)) giveWay(name, stand);
      }
      cancelRefresh();
      refresh();
    },
    devicesChanged() {
      if (stopped) return;
      sync();
      for (const address of standing) {
        repeats.get(address)?.();
        tell(address, 0);
      }
    },
    status: () =>
      [...claims.values()].map((claim) => {
        const state = stands.get(claim.lease)?.lease?.state();
        return { ...claim, here: standing.has(claim.address), leader: state?.holder, error: state?.error };
      }),
    async stop() {
      stopped = true;
      cancelRefresh();
      cancelSoon?.();
      for (const cancel of repeats.values()) cancel();
      for (const stand of stands.values()) stand.cancel();
      await Promise.all([...stands.values()].map((stand) => stand.lease?.release()));
      // The kernel goes on answering until the next node has made itself known.
      for (const address of standing)
        for (const device of devicesOf(address))
          attempt(`could not withdraw ${address}`, () => port.put(address, device, farewellMs));
    },
  };
}
