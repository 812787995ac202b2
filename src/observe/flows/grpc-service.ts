// Binds contracts to grpc-js: a service's methods with their paths and codecs, and the pumping of a stream that only
// takes as much from its source as the other end reads.
import {
  create,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';

/** The methods of a service, by name in lower camel case as generated. A message may be handed over already encoded. */
export function serviceDefinition(service: DescService): grpc.ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
        responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
        requestSerialize: (message: Message) => Buffer.from(toBinary(method.input, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        responseSerialize: (message: Message | Uint8Array) =>
          asBuffer(message instanceof Uint8Array ? message : toBinary(method.output, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A failure that the client is told as a status. */
export function statusError(code: grpc.status, details: string): grpc.ServiceError {
  return Object.assign(new Error(details), { code, details, metadata: new grpc.Metadata() });
}

/** Serves a unary call. */
export function unary<Request, Response>(
  handle: (request: Request) => Response | Promise<Response>,
): grpc.handleUnaryCall<Request, Response> {
  return (call, callback) => {
    Promise.resolve(call.request)
      .then(handle)
      .then(
        (response) => callback(null, response),
        (error) => callback(asStatus(error)),
      );
  };
}

/** Serves a stream: takes from the source only while the client reads, and ends it when the client goes. */
export function streaming<Request, Response>(
  handle: (request: Request, signal: AbortSignal) => AsyncIterable<Response>,
): grpc.handleServerStreamingCall<Request, Response> {
  return (call) => {
    const gone = new AbortController();
    for (const event of ['cancelled', 'close', 'error'] as const) call.on(event, () => gone.abort());
    pump(call, gone.signal, handle).then(
      () => call.end(),
      (error) => (gone.signal.aborted ? call.end() : call.emit('error', asStatus(error))),
    );
  };
}

async function pump<Request, Response>(
  call: grpc.ServerWritableStream<Request, Response>,
  signal: AbortSignal,
  handle: (request: Request, signal: AbortSignal) => AsyncIterable<Response>,
): Promise<void> {
  for await (const message of handle(call.request, signal)) {
    if (signal.aborted) return;
    if (!call.write(message)) await drained(call, signal);
  }
}

function drained(call: grpc.ServerWritableStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      call.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    call.once('drain', done);
    signal.addEventListener('abort', done);
  });
}

function asStatus(error: unknown): grpc.ServiceError {
  if (error instanceof Error && 'code' in error && typeof error.code === 'number') return error as grpc.ServiceError;
  return statusError(grpc.status.INTERNAL, error instanceof Error ? error.message : String(error));
}

/** A client of a service; methods take and give messages of the contract. */
export function serviceClient(
  service: DescService,
  target: string,
  options: grpc.ClientOptions = {},
): grpc.Client & Record<string, (...args: unknown[]) => unknown> {
  const Client = grpc.makeGenericClientConstructor(serviceDefinition(service), service.typeName);
  return new Client(target, grpc.credentials.createInsecure(), options) as never;
}

/** Calls a unary method of a client. */
export function callUnary<S extends DescService, M extends S['methods'][number]>(
  client: ReturnType<typeof serviceClient>,
  method: M,
  request: MessageInitShape<M['input']>,
  deadlineMs = 10_000,
): Promise<Message> {
  return new Promise((resolve, reject) => {
    client[method.localName]!(
      create(method.input, request as never),
      { deadline: Date.now() + deadlineMs },
      (error: Error | null, response: Message) => (error === null ? resolve(response) : reject(error)),
    );
  });
}
