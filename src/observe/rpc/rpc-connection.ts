// One connection to a server of gRPC, for a reader of many messages: they are handed over as bytes in the pieces that
// came, without an object or a promise for each.
import * as http2 from 'node:http2';
import { connect as connectPlain } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { create, type DescMethodUnary, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { createFrameReader, frame } from './message-frames.ts';
import { parseAddress } from './rpc-address.ts';
import { methodPath } from './rpc-service.ts';
import { asRpcError, decodeStatusMessage, RpcCode, RpcError } from './rpc-status.ts';
import type { TlsMaterial } from './tls-files.ts';

/** Where to connect to, and whom to expect there. */
export interface RpcTarget {
  readonly address: string;
  /** Without it the connection is in the clear. */
  readonly tls?: {
    readonly material: TlsMaterial;
    readonly serverName: string;
    /** In place of holding the certificate against the name. */
    readonly trust?: Pick<ConnectionOptions, 'rejectUnauthorized' | 'checkServerIdentity'>;
  };
  /** The header of that name, asked for before each call. */
  readonly authorization?: () => string;
}

/** Takes what a stream brings. */
export interface RpcSink {
  /** Whole messages that came together: each is `bytes[starts[i]..ends[i])`. The bytes stay what they are. */
  messages(bytes: Buffer, starts: readonly number[], ends: readonly number[]): void;
  /** Once, after everything else; without an error the server said that this was all. */
  end(error: RpcError | undefined): void;
}

/** A stream that is read. */
export interface RpcStream {
  /** No more is taken from the server until `resume`; it notices by the window of the stream. */
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** A connection that is open. */
export interface RpcConnection {
  /** Why it ended. */
  readonly closed: Promise<string>;
  stream(path: string, request: Uint8Array, sink: RpcSink): RpcStream;
  unary(path: string, request: Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  close(): void;
}

/** Calls a method that takes nothing and gives one message. */
export async function askFor<M extends DescMethodUnary>(
  connection: Pick<RpcConnection, 'unary'>,
  method: M,
  timeoutMs: number,
): Promise<MessageShape<M['output']>> {
  const request = toBinary(method.input, create(method.input));
  return fromBinary<M['output']>(method.output, await connection.unary(methodPath(method), request, timeoutMs));
}

const connectTimeoutMs = 5_000;
const pingEveryMs = 20_000;
const pingTimeoutMs = 10_000;
const maxMessageBytes = 4 << 20;
const connectionWindowBytes = 4 << 20;

/**
 * Connects; fails with UNAVAILABLE and the reason, the socket's error as its cause. A stream that is not read holds `windowBytes` at most: few for who
 * reads many streams at once, many for who reads one and is far away.
 */
export async function connectRpc(
  target: RpcTarget,
  windowBytes = 64 << 10,
  timeoutMs = connectTimeoutMs,
): Promise<RpcConnection> {
  const { address, tls } = target;
  const where = parseAddress(address);
  const unavailable = (reason: string, cause?: Error) => new RpcError(RpcCode.unavailable, reason, { cause });
  const socket =
    where.path !== undefined
      ? connectPlain({ path: where.path })
      : tls === undefined
        ? connectPlain({ host: where.host, port: where.port })
        : connectTls({
            host: where.host,
            port: where.port,
            servername: tls.serverName,
            minVersion: 'TLSv1.2',
            ALPNProtocols: ['h2'],
            ...tls.material,
            ...tls.trust,
          });
  const secure = where.path === undefined && tls !== undefined;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    socket.once('error', (error) => {
      clearTimeout(timer);
      reject(unavailable(error.message, error));
    });
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      clearTimeout(timer);
      if (secure && (socket as TLSSocket).alpnProtocol !== 'h2') {
        socket.destroy();
        reject(unavailable('it does not speak HTTP/2'));
      } else resolve();
    });
  });
  const session = http2.connect(secure ? 'https://weir' : 'http://weir', {
    createConnection: () => socket,
    settings: { initialWindowSize: windowBytes, enablePush: false },
    maxReservedRemoteStreams: 0,
  });
  let why = 'the connection was closed';
  const closed = new Promise<string>((resolve) => session.once('close', () => resolve(why)));
  session.on('error', (error) => (why = error.message));
  session.on('goaway', () => (why = 'the server ends'));
  session.once('connect', () => {
    // Whoever cannot say who it is asks for nothing, and is gone by now.
    if (!session.destroyed) session.setLocalWindowSize(connectionWindowBytes);
  });
  let pinged = false;
  const pings = setInterval(() => {
    if (session.destroyed || pinged) return;
    pinged = true;
    session.ping(() => (pinged = false));
    setTimeout(() => {
      if (pinged && !session.destroyed) session.destroy(new Error(`no answer for ${pingTimeoutMs / 1000} s`));
    }, pingTimeoutMs).unref();
  }, pingEveryMs);
  pings.unref();
  session.once('close', () => clearInterval(pings));

  const authority = tls?.serverName ?? 'localhost';
  function open(path: string, request: Uint8Array): http2.ClientHttp2Stream {
    if (session.destroyed || session.closed) throw unavailable(why);
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      ':authority': authority,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(target.authorization && { authorization: target.authorization() }),
    });
    stream.end(frame(request));
    return stream;
  }

  function read(stream: http2.ClientHttp2Stream, sink: RpcSink): RpcStream {
    const frames = createFrameReader(maxMessageBytes);
    let status: RpcError | 'ok' | undefined;
    let over = false;
    const end = (error: RpcError | undefined) => {
      if (over) return;
      over = true;
      if (!stream.destroyed) stream.close(http2.constants.NGHTTP2_CANCEL);
      sink.end(error);
    };
    const take = (headers: http2.IncomingHttpHeaders) => {
      const code = headers['grpc-status'];
      if (code === undefined) return;
      const message = decodeStatusMessage(String(headers['grpc-message'] ?? ''));
      status = Number(code) === RpcCode.ok ? 'ok' : new RpcError(Number(code), message || `status ${code}`);
    };
    stream.on('response', (headers) => {
      take(headers);
      if (headers[':status'] !== 200) status ??= unavailable(`it answered with HTTP status ${headers[':status']}`);
    });
    stream.on('trailers', take);
    stream.on('data', (chunk: Buffer) => {
      if (over) return;
      let whole = chunk;
      let starts: number[] = [];
      let ends: number[] = [];
      const tell = () => {
        if (starts.length > 0 && !over) sink.messages(whole, starts, ends);
      };
      try {
        frames.push(chunk, (bytes, start, until) => {
          if (bytes !== whole) {
            tell();
            whole = bytes;
            starts = [];
            ends = [];
          }
          starts.push(start);
          ends.push(until);
        });
        tell();
      } catch (error) {
        end(asRpcError(error));
      }
    });
    stream.on('error', () => {});
    stream.on('close', () =>
      end(status === 'ok' ? undefined : (status ?? unavailable(session.destroyed ? why : 'the stream was broken off'))),
    );
    return {
      pause: () => stream.pause(),
      resume: () => stream.resume(),
      cancel() {
        over = true;
        stream.close(http2.constants.NGHTTP2_CANCEL);
      },
    };
  }

  return {
    closed,
    stream: (path, request, sink) => read(open(path, request), sink),
    unary(path, request, timeoutMs) {
      return new Promise((resolve, reject) => {
        let answer: Uint8Array | undefined;
        const call = read(open(path, request), {
          messages(bytes, [start], [end]) {
            answer = bytes.subarray(start, end);
          },
          end(error) {
            clearTimeout(timer);
            if (error !== undefined || answer === undefined)
              reject(error ?? new RpcError(RpcCode.internal, 'it answered without a message'));
            else resolve(answer);
          },
        });
        const timer = setTimeout(() => {
          call.cancel();
          reject(new RpcError(RpcCode.deadlineExceeded, `no answer within ${timeoutMs / 1000} s`));
        }, timeoutMs);
      });
    },
    close: () => session.destroy(),
  };
}
