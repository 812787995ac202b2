// Clients of the contracts by the library that others use: what servers here say, somebody else has to understand.
import {
  create,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import { methodPath } from '../rpc-service.ts';

/** The methods of a service, by name in lower camel case as generated. */
function serviceDefinition(service: DescService): grpc.ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: methodPath(method),
        requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
        responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
        requestSerialize: (message: Message) => Buffer.from(toBinary(method.input, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        responseSerialize: (message: Message) => Buffer.from(toBinary(method.output, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}

/** A client of a service; methods take and give messages of the contract. In the clear unless credentials are given. */
export function serviceClient(
  service: DescService,
  target: string,
  options: grpc.ClientOptions = {},
  credentials: grpc.ChannelCredentials = grpc.credentials.createInsecure(),
): grpc.Client & Record<string, (...args: unknown[]) => unknown> {
  const Client = grpc.makeGenericClientConstructor(serviceDefinition(service), service.typeName);
  return new Client(target, credentials, options) as never;
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
