// Services as a server has them: a method's path, and what answers it in bytes. Handlers are written in messages of the
// contract; a stream may give bytes of its own, one message or many in their frames.
import { type DescMethod, type DescService, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { RpcCode, RpcError } from './rpc-status.ts';

/** Who calls, and until when an answer is wanted. */
export interface RpcCall {
  /** Aborted when the caller has gone, its time is over, or the server ends. */
  readonly signal: AbortSignal;
  readonly peer: RpcPeer;
  /** The header of that name: a secret, never to be logged. */
  readonly authorization?: string;
}

/** The other end of a connection. */
export interface RpcPeer {
  /** An IP address; empty for a unix socket. */
  readonly address: string;
  /** The common name of its certificate, when it showed one that is trusted. */
  readonly name?: string;
  /** The organizations in it. */
  readonly groups?: readonly string[];
  /** When it ends. */
  readonly validUntilMs?: number;
}

/** Messages that are encoded already, with their prefixes: for streams in which a message must not cost an object. */
export class FramedMessages {
  readonly bytes: Uint8Array;
  /** Called when the bytes are on their way and may be written over. */
  readonly release: (() => void) | undefined;

  constructor(bytes: Uint8Array, release?: () => void) {
    this.bytes = bytes;
    this.release = release;
  }
}

/** What a stream gives: a message, one message encoded, or several in frames. */
export type StreamItem = Message | Uint8Array | FramedMessages;

/** Answers a method: takes encoded messages, gives encoded ones or framed ones. */
export type RpcHandler = (
  requests: AsyncIterable<Uint8Array>,
  call: RpcCall,
) => AsyncIterable<Uint8Array | FramedMessages>;

/** A service and its handlers by path. */
export interface RpcService {
  readonly service: DescService;
  readonly handlers: ReadonlyMap<string, RpcHandler>;
}

/** A handler in messages; streams are async generators. */
export type MessageHandler =
  | { readonly unary: (request: never, call: RpcCall) => Message | Promise<Message> }
  | { readonly stream: (request: never, call: RpcCall) => AsyncIterable<StreamItem> }
  | { readonly both: (requests: AsyncIterable<never>, call: RpcCall) => AsyncIterable<StreamItem> };

/** The path of a method. */
export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Binds handlers to a contract, by the method's name in lower camel case; every method must have one. */
export function rpcService(service: DescService, handlers: Readonly<Record<string, MessageHandler>>): RpcService {
  return {
    service,
    handlers: new Map(
      service.methods.map((method) => {
        const handler = handlers[method.localName];
        if (handler === undefined) throw new Error(`no handler for ${service.typeName}.${method.name}`);
        return [methodPath(method), inBytes(method, handler)];
      }),
    ),
  };
}

function inBytes(method: DescMethod, handler: MessageHandler): RpcHandler {
  const decode = (bytes: Uint8Array): never => {
    try {
      return fromBinary(method.input, bytes) as never;
    } catch (error) {
      throw new RpcError(RpcCode.internal, `the request is no ${method.input.typeName}: ${(error as Error).message}`);
    }
  };
  return async function* (requests, call) {
    if ('both' in handler) {
      yield* encoded(method, handler.both(decoded(requests, decode), call));
      return;
    }
    const request = decode(await only(requests));
    if ('unary' in handler) yield toBinary(method.output, await handler.unary(request, call));
    else yield* encoded(method, handler.stream(request, call));
  };
}

async function* decoded(
  requests: AsyncIterable<Uint8Array>,
  decode: (bytes: Uint8Array) => never,
): AsyncGenerator<never> {
  for await (const bytes of requests) yield decode(bytes);
}

async function* encoded(
  method: DescMethod,
  items: AsyncIterable<StreamItem>,
): AsyncGenerator<Uint8Array | FramedMessages> {
  for await (const item of items)
    yield item instanceof Uint8Array || item instanceof FramedMessages ? item : toBinary(method.output, item);
}

/** The one request of a method that takes one. */
async function only(requests: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  for await (const bytes of requests) return bytes;
  throw new RpcError(RpcCode.internal, 'the call ended without a request');
}
