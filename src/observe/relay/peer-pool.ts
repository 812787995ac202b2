// Connections to the flow servers of all nodes: kept open, made again with growing pauses when they break. Calls take
// them as they are and are told when a node comes, goes or fails.
import { errorText } from '../../core/errors.ts';
import { connectRpc, type RpcConnection } from '../rpc/rpc-connection.ts';
import type { TlsMaterial } from '../rpc/tls-files.ts';

/** A node and where its flows are. */
export interface RelayPeer {
  readonly name: string;
  readonly address: string;
  /** The name that its certificate must have; without it the node does not speak TLS. */
  readonly serverName?: string;
}

/** A node as the pool has it. */
export interface NodeLink {
  readonly peer: RelayPeer;
  readonly state: 'connecting' | 'connected' | 'unavailable' | 'gone';
  /** While it is connected. */
  readonly connection: RpcConnection | undefined;
  /** Why it is not. */
  readonly problem: string;
}

/** What happened to a node. */
export type LinkEvent = { readonly kind: 'connected' | 'unavailable' | 'gone'; readonly link: NodeLink };

/** The nodes of a relay. */
export interface PeerPool {
  /** A node is there, or is somewhere else now. */
  set(peer: RelayPeer): void;
  delete(name: string): void;
  nodes(): NodeLink[];
  subscribe(listener: (event: LinkEvent) => void): () => void;
  /** Resolves when no node is being connected to for the first time, or after `timeoutMs`. */
  settled(timeoutMs: number): Promise<void>;
  close(): void;
}

const retryMs = { first: 250, most: 30_000 } as const;

interface Link extends NodeLink {
  state: NodeLink['state'];
  connection: RpcConnection | undefined;
  problem: string;
  readonly stop: AbortController;
}

/** Makes a pool. `tls` gives the certificate to show, anew for each connection; without it only nodes in the clear are reached. */
export function createPeerPool(options: {
  readonly tls?: () => TlsMaterial;
  readonly onEvent?: (event: LinkEvent) => void;
}): PeerPool {
  const links = new Map<string, Link>();
  const listeners = new Set<(event: LinkEvent) => void>();

  function tell(kind: LinkEvent['kind'], link: Link): void {
    options.onEvent?.({ kind, link });
    for (const listener of [...listeners]) listener({ kind, link });
  }

  async function keep(link: Link): Promise<void> {
    const { peer, stop } = link;
    let waitMs = 0;
    while (!stop.signal.aborted) {
      try {
        link.connection = await connect(peer);
        if (stop.signal.aborted) return link.connection.close();
        waitMs = 0;
        link.state = 'connected';
        link.problem = '';
        tell('connected', link);
        link.problem = await link.connection.closed;
      } catch (error) {
        link.problem = errorText(error);
      }
      const was = link.state;
      link.connection = undefined;
      if (stop.signal.aborted) return;
      link.state = 'unavailable';
      if (was !== 'unavailable') tell('unavailable', link);
      waitMs = Math.min(retryMs.most, Math.max(retryMs.first, waitMs * 2));
      // All nodes of a cluster may come back at once.
      await pause(waitMs * (0.75 + Math.random() / 2), stop.signal);
    }
  }

  async function connect(peer: RelayPeer): Promise<RpcConnection> {
    const { address, serverName } = peer;
    if (serverName === undefined) return connectRpc({ address });
    if (options.tls === undefined) throw new Error('the node wants TLS, and there is no certificate to show it');
    return connectRpc({ address, tls: { material: options.tls(), serverName } });
  }

  function remove(link: Link): void {
    link.state = 'gone';
    link.stop.abort();
    link.connection?.close();
    links.delete(link.peer.name);
  }

  return {
    set(peer) {
      const before = links.get(peer.name);
      if (before !== undefined) {
        if (before.peer.address === peer.address && before.peer.serverName === peer.serverName) return;
        remove(before);
        tell('gone', before);
      }
      const stop = new AbortController();
      const link: Link = { peer, state: 'connecting', connection: undefined, problem: 'not connected yet', stop };
      links.set(peer.name, link);
      void keep(link);
    },
    delete(name) {
      const link = links.get(name);
      if (link === undefined) return;
      remove(link);
      tell('gone', link);
    },
    nodes: () => [...links.values()],
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    settled(timeoutMs) {
      const isSettled = () => [...links.values()].every((link) => link.state !== 'connecting');
      if (isSettled()) return Promise.resolve();
      return new Promise((resolve) => {
        const look = () => {
          if (isSettled()) done();
        };
        const timer = setTimeout(done, timeoutMs);
        listeners.add(look);
        function done(): void {
          clearTimeout(timer);
          listeners.delete(look);
          resolve();
        }
      });
    },
    close() {
      for (const link of [...links.values()]) remove(link);
    },
  };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
  });
}
