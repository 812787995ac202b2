// The TCP and UDP sockets of this process's network namespace, from /proc/net: for questions that are asked by hand.
import { readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { formatAddress } from '../core/ip.ts';

/** A socket that listens, or is connected. UDP sockets without a peer listen. */
export interface SocketRow {
  readonly protocol: 'tcp' | 'udp';
  readonly state: 'listening' | 'connected';
  readonly address: string;
  readonly port: number;
  readonly peer: string;
  readonly peerPort: number;
}

const tcpEstablished = '01';
const tcpListen = '0A';
/** As the kernel shows UDP sockets without a peer. */
const udpOpen = '07';

/** All sockets of one of the kernel's tables. */
export function parseSockets(text: string, protocol: SocketRow['protocol']): SocketRow[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): SocketRow[] => {
      const [, local, remote, state] = line.trim().split(/\s+/);
      if (local === undefined || remote === undefined) return [];
      const listening = state === (protocol === 'tcp' ? tcpListen : udpOpen);
      if (!listening && state !== tcpEstablished) return [];
      const [address, port] = parseEnd(local);
      const [peer, peerPort] = parseEnd(remote);
      return [{ protocol, state: listening ? 'listening' : 'connected', address, port, peer, peerPort }];
    });
}

/** `0100007F:1F90`: words of the address as this machine has them in memory, and the port. */
function parseEnd(text: string): [string, number] {
  const [hex = '', port = '0'] = text.split(':');
  const words = (hex.match(/.{8}/g) ?? []).map((word) => Number.parseInt(word, 16));
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setUint32(i * 4, word, endianness() === 'LE');
  const mapped = bytes.length === 16 && bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255;
  const plain = mapped ? bytes.subarray(12) : bytes;
  return [formatAddress({ family: plain.length === 4 ? 4 : 6, bytes: plain }), Number.parseInt(port, 16)];
}

/** Those of this namespace. */
export function listSockets(): SocketRow[] {
  return (['tcp', 'udp'] as const).flatMap((protocol) =>
    ['', '6'].flatMap((family) => parseSockets(readFileSync(`/proc/self/net/${protocol}${family}`, 'utf8'), protocol)),
  );
}
