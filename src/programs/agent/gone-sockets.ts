// Watches for backends that go and ends the sockets of this node that talk to them.
import { closeSync } from 'node:fs';
import type { GoneBackend } from '../../connect/services/backend-numbers.ts';
import { endSocketsOf, type SocketNamespace } from '../../connect/services/gone-backends.ts';
import { errorText } from '../../core/errors.ts';
import type { AddressRow, EndpointRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { netnsCookie, openNetns, withNetns } from '../../kernel/netns.ts';
import type { Log } from '../log.ts';

/** Ends sockets. */
export interface GoneSockets {
  /** Backends may have gone: looks soon, once for many. */
  look(): void;
  stop(): void;
}

const pauseMs = 50;
/** A pod that left its Service may go for so long until it is taken for one that stays. */
const keptMs = 10 * 60_000;
const hostNetns = '/proc/thread-self/ns/net';

/** `take` gives the backends that went since it was asked last. */
export function watchGoneSockets(options: {
  readonly take: () => GoneBackend[];
  readonly peers: BpfMap;
  readonly endpoints: ReadTable<EndpointRow>;
  readonly addresses: ReadTable<AddressRow>;
  readonly log: Log;
}): GoneSockets {
  const { endpoints, addresses, log } = options;
  const hostCookie = netnsCookie();
  const cookies = new Map<string, bigint>();
  /** Of TCP, whose pods are still there. */
  let kept: { backend: GoneBackend; untilMs: number }[] = [];
  let timer: NodeJS.Timeout | undefined;

  const isPod = (address: string) => addresses.get(address)?.kind === 'pod';

  function namespace(cookie: bigint): SocketNamespace | undefined {
    const open = (path: string): SocketNamespace => ({
      cookie,
      open: () => {
        try {
          return openNetns(path);
        } catch {
          return undefined; // The pod went meanwhile, and its sockets with it.
        }
      },
    });
    if (cookie === hostCookie) return open(hostNetns);
    const paths = new Set<string>();
    for (const { netns } of endpoints.rows()) {
      paths.add(netns);
      if (cookieOf(netns) === cookie) return open(netns);
    }
    for (const path of cookies.keys()) if (!paths.has(path)) cookies.delete(path);
    return undefined;
  }

  function cookieOf(path: string): bigint | undefined {
    const known = cookies.get(path);
    if (known !== undefined) return known;
    try {
      const cookie = withNetns(path, netnsCookie);
      cookies.set(path, cookie);
      return cookie;
    } catch {
      return undefined;
    }
  }

  function work(): void {
    timer = undefined;
    const now = performance.now();
    const gone = options.take();
    const again = kept.filter((each) => !isPod(each.backend.address)).map((each) => each.backend);
    kept = kept.filter((each) => isPod(each.backend.address) && each.untilMs > now);
    for (const backend of gone)
      if (backend.protocol === 'TCP' && isPod(backend.address)) kept.push({ backend, untilMs: now + keptMs });
    try {
      const { ended, forgotten } = endSocketsOf({
        gone: [...gone, ...again],
        peers: options.peers,
        namespace,
        keepTcp: isPod,
        closeFd: closeSync,
        onError: (error) => log.warn('sockets of a backend that went could not be ended', { error: errorText(error) }),
      });
      if (forgotten > 0) log.debug('sockets of backends that went', { ended, forgotten });
    } catch (error) {
      log.warn('sockets of backends that went could not be looked for', { error: errorText(error) });
    }
  }

  const look = () => {
    timer ??= setTimeout(work, pauseMs);
  };
  const unsubscribe = addresses.subscribe(({ changes }) => {
    if (kept.length > 0 && changes.some(({ before, after }) => before?.kind === 'pod' && after === undefined)) look();
  });
  return {
    look,
    stop() {
      unsubscribe();
      clearTimeout(timer);
    },
  };
}
