// The gRPC server of an agent: flows, nodes and its health, on a unix socket or any address grpc understands.
import { chmodSync, rmSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import {
  Health,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from '../../../proto/gen/health/health_pb.js';
import { Observer } from '../../../proto/gen/observer/observer_pb.js';
import { Peer } from '../../../proto/gen/peer/peer_pb.js';
import type { NodeRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { serviceDefinition, unary } from './grpc-service.ts';
import { type ObserverSource, observerHandlers } from './observer-service.ts';
import { peerHandlers } from './peer-service.ts';

/** A server that runs. */
export interface FlowServer {
  /** Ends all streams and the server. */
  close(): Promise<void>;
}

const maxRequestBytes = 1 << 20;

/** Listens on `address`, such as `unix:/run/weir/hubble.sock`; an old socket of that name is removed. */
export async function serveFlows(options: {
  readonly address: string;
  readonly source: ObserverSource;
  readonly nodes: ReadTable<NodeRow>;
  readonly credentials?: grpc.ServerCredentials;
}): Promise<FlowServer> {
  const { address, source, nodes, credentials = grpc.ServerCredentials.createInsecure() } = options;
  const server = new grpc.Server({
    'grpc.max_receive_message_length': maxRequestBytes,
    'grpc.max_concurrent_streams': 128,
    'grpc.keepalive_time_ms': 60_000,
  });
  server.addService(serviceDefinition(Observer), observerHandlers(source));
  server.addService(serviceDefinition(Peer), peerHandlers(nodes, source.context.nodeName, address));
  server.addService(serviceDefinition(Health), {
    check: unary(() => create(HealthCheckResponseSchema, { status: HealthCheckResponse_ServingStatus.SERVING })),
  });
  const path = address.startsWith('unix:') ? address.slice('unix:'.length) : undefined;
  if (path !== undefined) rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(address, credentials, (error) => (error === null ? resolve() : reject(error)));
  });
  if (path !== undefined) chmodSync(path, 0o600);
  return {
    async close() {
      server.forceShutdown();
      if (path !== undefined) rmSync(path, { force: true });
    },
  };
}
