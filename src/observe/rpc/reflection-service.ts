// Server reflection, by which tools such as grpcurl learn a server's contracts from itself; both versions in use.
import { create, type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import {
  ServerReflectionResponseSchema as ResponseV1,
  type ServerReflectionRequest,
  ServerReflection as V1,
} from '../../../proto/gen/reflection/v1_pb.js';
import {
  ServerReflectionResponseSchema as ResponseV1Alpha,
  ServerReflection as V1Alpha,
} from '../../../proto/gen/reflection/v1alpha_pb.js';
import { type RpcService, rpcService } from './rpc-service.ts';
import { RpcCode } from './rpc-status.ts';

/** The two services, over these others and themselves. */
export function reflectionServices(others: readonly RpcService[]): RpcService[] {
  const services = [...others.map((each) => each.service), V1, V1Alpha];
  const files = new Map<string, DescFile>();
  const add = (file: DescFile): void => {
    if (files.has(file.proto.name)) return;
    files.set(file.proto.name, file);
    for (const below of file.dependencies) add(below);
  };
  for (const each of services) add(each.file);
  const symbols = symbolsOf(files.values());

  /** The file and what it imports, each once. */
  function closure(file: DescFile): Uint8Array[] {
    const found = new Set<DescFile>();
    const visit = (each: DescFile): void => {
      if (found.has(each)) return;
      found.add(each);
      for (const below of each.dependencies) visit(below);
    };
    visit(file);
    return [...found].map((each) => toBinary(FileDescriptorProtoSchema, each.proto));
  }

  function answerTo({ messageRequest: asked }: ServerReflectionRequest): Answer {
    const fileOf = (file: DescFile | undefined, what: string): Answer =>
      file === undefined
        ? notFound(what)
        : { case: 'fileDescriptorResponse', value: { fileDescriptorProto: closure(file) } };
    switch (asked.case) {
      case 'fileByFilename':
        return fileOf(files.get(asked.value), asked.value);
      case 'fileContainingSymbol':
        return fileOf(symbols.get(asked.value), asked.value);
      case 'listServices':
        return {
          case: 'listServicesResponse',
          value: { service: services.map((each: DescService) => ({ name: each.typeName })) },
        };
      case 'allExtensionNumbersOfType':
        return symbols.has(asked.value)
          ? { case: 'allExtensionNumbersResponse', value: { baseTypeName: asked.value, extensionNumber: [] } }
          : notFound(asked.value);
      default:
        return notFound('extension');
    }
  }

  const serve = (service: DescService, schema: typeof ResponseV1 | typeof ResponseV1Alpha) =>
    rpcService(service, {
      serverReflectionInfo: {
        async *both(requests: AsyncIterable<ServerReflectionRequest>) {
          for await (const request of requests)
            yield create(schema as typeof ResponseV1, {
              validHost: request.host,
              originalRequest: schema === ResponseV1 ? request : undefined,
              messageResponse: answerTo(request),
            });
        },
      },
    });
  return [serve(V1, ResponseV1), serve(V1Alpha, ResponseV1Alpha)];
}

type Answer =
  | { case: 'fileDescriptorResponse'; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: 'listServicesResponse'; value: { service: { name: string }[] } }
  | { case: 'allExtensionNumbersResponse'; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: 'errorResponse'; value: { errorCode: number; errorMessage: string } };

function notFound(what: string): Answer {
  return {
    case: 'errorResponse',
    value: { errorCode: RpcCode.notFound, errorMessage: `${what.slice(0, 200)} is not known here` },
  };
}

/** Services, methods, messages, fields and enums by their full names. */
function symbolsOf(files: Iterable<DescFile>): Map<string, DescFile> {
  const symbols = new Map<string, DescFile>();
  for (const file of files) {
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
    const messages = [...file.messages];
    const enums = [...file.enums];
    for (const message of messages) {
      symbols.set(message.typeName, file);
      for (const field of message.fields) symbols.set(`${message.typeName}.${field.name}`, file);
      messages.push(...message.nestedMessages);
      enums.push(...message.nestedEnums);
    }
    for (const each of enums) symbols.set(each.typeName, file);
  }
  return symbols;
}
