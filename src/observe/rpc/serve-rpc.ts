// A server of gRPC over HTTP/2. Messages of a stream go out in batches: the one library for Node makes a frame, several
// promises and a write of each, which is most of what a flow would cost. Every limit that a stranger can reach is here.
import { chmodSync } from 'node:fs';
import * as http2 from 'node:http2';
import type { AddressInfo, Server, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { removeOldSocket } from '../../kernel/unix-socket.ts';
import { createFrameReader, frame } from './message-frames.ts';
import { joinAddress, parseAddress } from './rpc-address.ts';
import { FramedMessages, type RpcHandler, type RpcPeer, type RpcService } from './rpc-service.ts';
import { asRpcError, encodeStatusMessage, parseTimeoutMs, RpcCode, RpcError } from './rpc-status.ts';
import type { TlsMaterial, WatchedTls } from './tls-files.ts';

/** What strangers cannot exceed. */
export interface RpcLimits {
  readonly requestBytes: number;
  readonly connections: number;
  /** From one address. */
  readonly connectionsPerClient: number;
  readonly callsPerConnection: number;
  readonly calls: number;
}

const defaultLimits: RpcLimits = {
  requestBytes: 1 << 20,
  connections: 512,
  connectionsPerClient: 64,
  callsPerConnection: 128,
  calls: 1024,
};

/** Who may connect: anybody who reaches the socket, or holders of certificates. */
export interface RpcTls {
  readonly files: WatchedTls;
  /** Whether clients must show a certificate of the authority. */
  readonly clients: 'required' | 'asked' | 'none';
}

/** A server that listens. */
export interface RpcServer {
  /** Where it listens, with the port that was chosen. */
  readonly address: string;
  readonly connections: number;
  readonly calls: number;
  /** What was over a limit. */
  readonly refused: { readonly connections: number; readonly calls: number };
  /** Ends all streams and the server. */
  close(): Promise<void>;
}

const handshakeTimeoutMs = 10_000;
const pingEveryMs = 60_000;
const pingTimeoutMs = 20_000;
/** So much of a stream is gathered before it is handed to the connection. */
const batchBytes = 16 << 10;

/** Listens on `address`, such as `unix:/run/weir/hubble.sock` or `[::]:4244`; an old socket of that name is removed. */
export async function serveRpc(options: {
  readonly address: string;
  readonly services: readonly RpcService[];
  readonly tls?: RpcTls;
  readonly limits?: Partial<RpcLimits>;
}): Promise<RpcServer> {
  const limits = { ...defaultLimits, ...options.limits };
  const handlers = new Map(options.services.flatMap((each) => [...each.handlers]));
  const where = parseAddress(options.address);
  const sessions = new Set<http2.ServerHttp2Session>();
  const sockets = new Map<string, number>();
  let connections = 0;
  let calls = 0;
  const refused = { connections: 0, calls: 0 };

  const { tls } = options;
  const http2Options: http2.ServerOptions = {
    settings: { maxConcurrentStreams: limits.callsPerConnection, maxHeaderListSize: 16 << 10, enablePush: false },
    maxSessionInvalidFrames: 100,
  };
  const server =
    tls === undefined
      ? http2.createServer(http2Options)
      : http2.createSecureServer({ ...http2Options, ...tlsOptions(tls), handshakeTimeout: handshakeTimeoutMs });
  tls?.files.onChange(() => (server as http2.Http2SecureServer).setSecureContext(tls.files.material));

  server.on('connection', (socket: Socket) => {
    const client = socket.remoteAddress ?? '';
    const before = sockets.get(client) ?? 0;
    // Whoever reaches a unix socket is one who may.
    if (connections >= limits.connections || (client !== '' && before >= limits.connectionsPerClient)) {
      refused.connections++;
      return socket.destroy();
    }
    connections++;
    sockets.set(client, before + 1);
    socket.on('close', () => {
      connections--;
      const left = sockets.get(client)! - 1;
      if (left === 0) sockets.delete(client);
      else sockets.set(client, left);
    });
    return undefined;
  });
  server.on('session', (session: http2.ServerHttp2Session) => {
    sessions.add(session);
    const stopPings = keepAlive(session);
    session.on('error', () => {});
    session.on('close', () => {
      sessions.delete(session);
      stopPings();
    });
  });
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    stream.on('error', () => {});
    if (calls >= limits.calls) {
      refused.calls++;
      return finish(stream, new RpcError(RpcCode.resourceExhausted, 'the server has too many calls'));
    }
    calls++;
    stream.on('close', () => calls--);
    return answer(stream, headers, handlers, limits);
  });
  // A client that does not speak TLS, or shows a wrong certificate, is none of the server's troubles.
  server.on('tlsClientError', () => {});
  server.on('sessionError', () => {});

  if (where.path !== undefined) removeOldSocket(where.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(where.path === undefined ? { host: where.host, port: where.port } : { path: where.path }, () => {
      server.off('error', reject);
      server.on('error', () => {});
      resolve();
    });
  });
  if (where.path !== undefined) chmodSync(where.path, 0o600);

  return {
    get address() {
      return where.path === undefined ? addressOf(server) : options.address;
    },
    get connections() {
      return connections;
    },
    get calls() {
      return calls;
    },
    refused,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.destroy();
      await closed;
    },
  };
}

function addressOf(server: Server | http2.Http2Server): string {
  const { address, port } = server.address() as AddressInfo;
  return joinAddress(address, port);
}

function tlsOptions({ files, clients }: RpcTls): http2.SecureServerOptions & TlsMaterial {
  return {
    ...files.material,
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['h2'],
    requestCert: clients !== 'none',
    rejectUnauthorized: clients === 'required',
  };
}

/** Finds out that the other end is gone without a word. */
function keepAlive(session: http2.Http2Session): () => void {
  let answered = true;
  const timer = setInterval(() => {
    if (session.destroyed) return;
    answered = false;
    session.ping((error) => {
      if (error === null) answered = true;
    });
    setTimeout(() => {
      if (!answered && !session.destroyed) session.destroy();
    }, pingTimeoutMs).unref();
  }, pingEveryMs);
  timer.unref();
  return () => clearInterval(timer);
}

function peerOf(stream: http2.ServerHttp2Stream): RpcPeer {
  const socket = stream.session?.socket as TLSSocket | undefined;
  const address = socket?.remoteAddress ?? '';
  if (socket?.encrypted !== true || !socket.authorized) return { address };
  const certificate = socket.getPeerCertificate();
  // Several of a name are an array, whatever the types say.
  const { CN: name, O: groups = [] } = (certificate?.subject ?? {}) as Record<
    'CN' | 'O',
    string | string[] | undefined
  >;
  return {
    address,
    name: Array.isArray(name) ? name[0] : name,
    groups: [groups].flat(),
    validUntilMs: Date.parse(certificate?.valid_to ?? ''),
  };
}

function answer(
  stream: http2.ServerHttp2Stream,
  headers: http2.IncomingHttpHeaders,
  handlers: ReadonlyMap<string, RpcHandler>,
  limits: RpcLimits,
): void {
  if (headers[':method'] !== 'POST' || !headers['content-type']?.startsWith('application/grpc')) {
    stream.respond({ ':status': 415 }, { endStream: true });
    stream.resume();
    return;
  }
  const handler = handlers.get(String(headers[':path']));
  if (handler === undefined) {
    finish(stream, new RpcError(RpcCode.unimplemented, `there is no method ${headers[':path']}`));
    return;
  }
  const gone = new AbortController();
  stream.on('close', () => gone.abort());
  stream.on('aborted', () => gone.abort());
  const timeoutMs = parseTimeoutMs(headers['grpc-timeout'] as string | undefined);
  let late = false;
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(
          () => {
            late = true;
            gone.abort();
          },
          Math.min(timeoutMs, 2 ** 31 - 1),
        );
  const peer = peerOf(stream);
  const done = (error?: RpcError) => {
    clearTimeout(timer);
    gone.abort();
    finish(stream, late ? new RpcError(RpcCode.deadlineExceeded, 'the time given for the answer is over') : error);
  };
  const call = { signal: gone.signal, peer, authorization: headers.authorization };
  pump(stream, handler(requestsOf(stream, limits.requestBytes), call), gone.signal).then(
    () => done(),
    (error) => done(asRpcError(error)),
  );
}

/** Ends the call with its status; nothing else was said when it fails at once. */
function finish(stream: http2.ServerHttp2Stream, error: RpcError | undefined): void {
  if (stream.destroyed || stream.closed) return;
  const status = {
    'grpc-status': String(error?.code ?? RpcCode.ok),
    ...(error === undefined ? {} : { 'grpc-message': encodeStatusMessage(error.message) }),
  };
  stream.resume();
  if (!stream.headersSent) {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
    return;
  }
  stream.once('wantTrailers', () => stream.sendTrailers(status));
  stream.end();
}

/** The messages that the client sends. Of one who sends many, no more are taken than are used. */
async function* requestsOf(stream: http2.ServerHttp2Stream, maxBytes: number): AsyncGenerator<Uint8Array> {
  const frames = createFrameReader(maxBytes);
  // Not destroyed when one message was enough: the answer goes over the same stream.
  for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    const messages: Uint8Array[] = [];
    frames.push(chunk, (bytes, start, end) => messages.push(bytes.subarray(start, end)));
    yield* messages;
  }
  if (frames.unfinished) throw new RpcError(RpcCode.internal, 'the call ended within a message');
}

/** Writes what the handler gives, in batches, and takes more only while the client reads. */
async function pump(
  stream: http2.ServerHttp2Stream,
  items: AsyncIterable<Uint8Array | FramedMessages>,
  signal: AbortSignal,
): Promise<void> {
  let batch: Uint8Array[] = [];
  let bytes = 0;
  let released: (() => void)[] = [];
  let scheduled = false;

  function flush(): void {
    scheduled = false;
    if (bytes === 0 || stream.destroyed || stream.writableEnded) return;
    if (!stream.headersSent)
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    const free = released;
    stream.write(batch.length === 1 ? batch[0]! : Buffer.concat(batch, bytes), () => {
      for (const release of free) release();
    });
    batch = [];
    bytes = 0;
    released = [];
  }

  try {
    for await (const item of items) {
      if (signal.aborted) return;
      const framed = item instanceof FramedMessages ? item.bytes : frame(item);
      if (item instanceof FramedMessages && item.release !== undefined) released.push(item.release);
      batch.push(framed);
      bytes += framed.length;
      if (bytes >= batchBytes) {
        flush();
      } else if (!scheduled) {
        scheduled = true;
        // What comes in the same turn goes with it.
        setImmediate(flush);
      }
      // Also for what trickles: small pieces pile up as well when nobody reads.
      if (stream.writableNeedDrain) await drained(stream, signal);
      if (signal.aborted) return;
    }
  } finally {
    // Also what was given before something failed.
    flush();
  }
}

function drained(stream: http2.ServerHttp2Stream, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      stream.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    stream.once('drain', done);
    signal.addEventListener('abort', done);
  });
}
