// Sockets that talk to a backend which went: nobody answers them any more, and nobody would tell them. Those that a Service
// connected are ended, so that their programs connect anew at once and get a backend that is there.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps, SocketPeerOffset } from '../../kernel/datapath.gen.ts';
import { openSocketDiag } from '../../kernel/socket-diag.ts';
import { addressText } from '../datapath/address-keys.ts';
import type { GoneBackend } from './backend-numbers.ts';

/** A network namespace in which sockets may be. */
export interface SocketNamespace {
  readonly cookie: bigint;
  /** Opens it; undefined when it has gone. The descriptor is closed by `closeFd`. */
  readonly open: () => number | undefined;
}

/** What was done. */
export interface EndedSockets {
  readonly ended: number;
  readonly forgotten: number;
}

const protocols = { TCP: 6, UDP: 17, SCTP: 132 } as const;

/**
 * Ends the sockets of gone backends and forgets what was remembered of them. `keepTcp` says that a backend left the Service
 * but its pod is still there: its TCP connections go on.
 */
export function endSocketsOf(options: {
  readonly gone: readonly GoneBackend[];
  readonly peers: BpfMap;
  readonly namespace: (cookie: bigint) => SocketNamespace | undefined;
  readonly keepTcp: (address: string) => boolean;
  readonly closeFd: (fd: number) => void;
  readonly onError: (error: unknown) => void;
}): EndedSockets {
  if (options.gone.length === 0) return { ended: 0, forgotten: 0 };
  const byNumber = new Map(options.gone.map((backend) => [backend.number, backend]));
  const byNamespace = new Map<bigint, { cookie: bigint; backend: GoneBackend }[]>();
  let forgotten = 0;
  const { key: keys, value: values } = datapathMaps.socket_peers;
  for (const entry of options.peers.entries()) {
    // Tens of thousands may be of others: only those that count are read whole.
    const { buffer, byteOffset } = entry.value;
    const backend = byNumber.get(new DataView(buffer, byteOffset).getUint32(SocketPeerOffset.backend, true));
    if (backend === undefined) continue;
    const [key, value] = [keys.decode(entry.key), values.decode(entry.value)];
    if (backend.generation !== value.generation) continue;
    if (backend.protocol === 'TCP' && options.keepTcp(backend.address)) continue;
    const list = byNamespace.get(value.netns) ?? [];
    byNamespace.set(value.netns, list);
    list.push({ cookie: key.cookie, backend });
    options.peers.delete(entry.key);
    forgotten++;
  }
  let ended = 0;
  for (const [cookie, sockets] of byNamespace) {
    try {
      ended += endIn(options.namespace(cookie), sockets, options.closeFd);
    } catch (error) {
      options.onError(error);
    }
  }
  return { ended, forgotten };
}

function endIn(
  namespace: SocketNamespace | undefined,
  sockets: readonly { cookie: bigint; backend: GoneBackend }[],
  closeFd: (fd: number) => void,
): number {
  const fd = namespace?.open();
  if (fd === undefined) return 0;
  let ended = 0;
  try {
    const diag = openSocketDiag(fd);
    try {
      const ends = new Map(sockets.map(({ backend }) => [`${backend.protocol} ${backend.port}`, backend]));
      for (const { protocol, port } of ends.values()) {
        if (protocol === 'SCTP') continue;
        for (const socket of diag.connectedTo(protocols[protocol], port)) {
          const remote = addressText(socket.remote);
          // The number of a socket alone may be another's by now, and a socket may have been connected elsewhere since.
          const meant = sockets.some(
            (each) =>
              each.cookie === socket.cookie &&
              each.backend.protocol === protocol &&
              each.backend.port === port &&
              each.backend.address === remote,
          );
          if (meant && diag.destroy(socket)) ended++;
        }
      }
    } finally {
      diag.close();
    }
  } finally {
    closeFd(fd);
  }
  return ended;
}
