// The health check that gRPC clients and load balancers know, for a server whose services are well while it runs.
import { create } from '@bufbuild/protobuf';
import {
  Health,
  type HealthCheckRequest,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from '../../../proto/gen/health/health_pb.js';
import { type RpcService, rpcService } from './rpc-service.ts';
import { RpcCode, RpcError } from './rpc-status.ts';

/** Whether the server can do its work; `subscribe` is told of changes. */
export interface HealthState {
  serving(): boolean;
  subscribe(listener: () => void): () => void;
}

/** By this name Hubble's clients ask, before anything else, whether a server of flows is well. */
const hubbleName = 'hubble.server.Observer';

const always: HealthState = { serving: () => true, subscribe: () => () => {} };

/** The service, for these others. */
export function healthService(others: readonly RpcService[], state: HealthState = always): RpcService {
  const observer = 'observer.Observer';
  const typeNames = others.map((each) => each.service.typeName);
  const names = new Set(['', Health.typeName, ...typeNames, ...(typeNames.includes(observer) ? [hubbleName] : [])]);
  const now = (name: string) =>
    create(HealthCheckResponseSchema, {
      status: !names.has(name) ? Status.SERVICE_UNKNOWN : state.serving() ? Status.SERVING : Status.NOT_SERVING,
    });
  return rpcService(Health, {
    check: {
      unary({ service }: HealthCheckRequest) {
        if (!names.has(service)) throw new RpcError(RpcCode.notFound, `there is no service ${JSON.stringify(service)}`);
        return now(service);
      },
    },
    list: {
      unary: () =>
        create(HealthListResponseSchema, { statuses: Object.fromEntries([...names].map((name) => [name, now(name)])) }),
    },
    watch: {
      async *stream({ service }: HealthCheckRequest, { signal }) {
        let told: Status | undefined;
        while (!signal.aborted) {
          const message = now(service);
          if (message.status !== told) yield message;
          told = message.status;
          await new Promise<void>((resolve) => {
            const stop = state.subscribe(done);
            signal.addEventListener('abort', done);
            function done(): void {
              stop();
              signal.removeEventListener('abort', done);
              resolve();
            }
          });
        }
      },
    },
  });
}
