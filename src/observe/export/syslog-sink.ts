// Syslog (RFC 5424) over UDP (RFC 5426), TCP with counted octets (RFC 6587) and TLS (RFC 5425). The protocol has no
// answers: what was written to a connection that then breaks is written again to the next one.
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { connect as connectTcp, isIPv6, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { explainTls } from './explain-tls.ts';
import type { ConfigOf } from './export-config.ts';
import { tlsOptions } from './http-post.ts';
import type { QueuedEvent } from './queue-record.ts';
import { allArrived, type Sink } from './sink.ts';

const defaultPorts: Readonly<Record<string, number>> = { 'udp:': 514, 'tcp:': 601, 'tls:': 6514 };
/** A UDP packet has no room for more. */
const maxUdpBytes = 65_000;

/** Makes a client. */
export function createSyslogSink(config: Pick<ConfigOf<'syslog'>, 'address' | 'tls'>): Sink {
  const url = new URL(config.address);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port) || defaultPorts[url.protocol]!;
  return url.protocol === 'udp:' ? udpSink(host, port) : streamSink(config, url.protocol, host, port);
}

function udpSink(host: string, port: number): Sink {
  let socket: UdpSocket | undefined;
  let socketFamily = 0;
  return {
    async send(batch) {
      // Once for a batch: names get other addresses, and of the other family.
      const { address, family } = await lookup(host);
      if (socket === undefined || family !== socketFamily) {
        socket?.close();
        socket = createSocket(family === 6 ? 'udp6' : 'udp4');
        socket.on('error', () => {});
        socketFamily = family;
      }
      let refused = 0;
      for (const { body } of batch) {
        const bytes = Buffer.from(body);
        if (bytes.length > maxUdpBytes) {
          refused++;
          continue;
        }
        await new Promise<void>((resolve, reject) =>
          socket!.send(bytes, port, address, (error) => (error ? reject(error) : resolve())),
        );
      }
      return refused === 0
        ? allArrived
        : { again: [], refused, why: `larger than a UDP packet of ${maxUdpBytes} bytes` };
    },
    close: () => void socket?.close(),
  };
}

function streamSink(config: Pick<ConfigOf<'syslog'>, 'tls'>, protocol: string, host: string, port: number): Sink {
  let socket: Socket | undefined;
  /** Written last: nobody knows whether it was read. */
  let unsure: readonly QueuedEvent[] = [];

  async function connected(signal: AbortSignal): Promise<Socket> {
    if (socket !== undefined) return socket;
    const target = { host, port };
    const made =
      protocol === 'tls:'
        ? connectTls({
            ...target,
            ...(isIPv6(host) || /^[\d.]+$/.test(host) ? {} : { servername: host }),
            ...tlsOptions(config.tls),
          })
        : connectTcp(target);
    const lost = () => {
      if (socket === made) socket = undefined;
      made.destroy();
    };
    made.on('error', lost).on('close', lost).on('end', lost);
    // What a receiver says is of no use, but must be read for the connection's end to be seen.
    made.resume();
    made.setKeepAlive(true, 15_000);
    try {
      await once(made, protocol === 'tls:' ? 'secureConnect' : 'connect', { signal });
    } catch (error) {
      made.destroy();
      throw new Error(explainTls(error as Error), { cause: error });
    }
    socket = made;
    return made;
  }

  return {
    async send(batch, signal) {
      const fresh = socket === undefined;
      const stream = await connected(signal);
      const events = fresh ? [...unsure, ...batch] : batch;
      const frames = Buffer.concat(
        events.flatMap(({ body }) => {
          const bytes = Buffer.from(body);
          return [Buffer.from(`${bytes.length} `), bytes];
        }),
      );
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => {
          stream.destroy();
          reject(new Error('the receiver does not read'));
        };
        signal.addEventListener('abort', onAbort, { once: true });
        const onClose = () => reject(new Error('the connection broke'));
        stream.once('close', onClose);
        stream.write(frames, (error) => {
          signal.removeEventListener('abort', onAbort);
          stream.off('close', onClose);
          if (error) reject(error);
          else resolve();
        });
      });
      unsure = batch;
      return allArrived;
    },
    close() {
      socket?.end();
      socket = undefined;
    },
  };
}
