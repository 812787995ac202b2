// A node as a relay sees it: a real flow server whose flows a test makes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type GetDebugEventsRequest,
  type GetFlowsRequest,
  type GetFlowsResponse,
  GetFlowsResponseSchema,
  GetNamespacesResponseSchema,
  GetNodesResponseSchema,
  Observer,
  ServerStatusResponseSchema,
} from '../../../../proto/gen/observer/observer_pb.js';
import { type RpcCall, rpcService } from '../../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../../rpc/rpc-status.ts';
import { type RpcServer, type RpcTls, serveRpc } from '../../rpc/serve-rpc.ts';

/** A node whose flows are what the test adds. */
export interface FakeNode {
  readonly name: string;
  readonly address: string;
  /** Requests for flows, the oldest first. */
  readonly asked: GetFlowsRequest[];
  /** How the streams that are open now are doing: how many responses each was given. */
  readonly given: number[];
  add(...timesMs: number[]): void;
  lose(count: number, timeMs: number): void;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** While it is set, no stream gives anything. */
  silent: boolean;
}

/** Starts a node; it ends with the test. */
export async function fakeNode(
  t: TestContext,
  name: string,
  options: { readonly tls?: RpcTls; readonly listen?: string; readonly padding?: number } = {},
): Promise<FakeNode> {
  const folder = mkdtempSync(join(tmpdir(), 'weir-relay-'));
  let listen = options.listen ?? `unix:${join(folder, `${name}.sock`)}`;
  const all: GetFlowsResponse[] = [];
  const listeners = new Set<() => void>();
  const asked: GetFlowsRequest[] = [];
  const given: number[] = [];
  let server: RpcServer | undefined;
  const response = (timeMs: number, responseTypes: GetFlowsResponse['responseTypes']) =>
    create(GetFlowsResponseSchema, { responseTypes, nodeName: name, time: timestampFromMs(timeMs) });
  const push = (...responses: GetFlowsResponse[]) => {
    all.push(...responses);
    for (const listener of [...listeners]) listener();
  };
  const msOf = ({ time }: GetFlowsResponse) => Number(time!.seconds) * 1000 + time!.nanos / 1e6;

  async function* flows(request: GetFlowsRequest, { signal }: RpcCall): AsyncGenerator<GetFlowsResponse> {
    asked.push(request);
    if (request.whitelist.some((filter) => filter.sourceIp.includes('wrong')))
      throw new RpcError(RpcCode.invalidArgument, 'source_ip: wrong');
    const { number, first, follow, since } = request;
    const sinceMs = since === undefined ? 0 : Number(since.seconds) * 1000 + since.nanos / 1e6;
    let next = follow && number === 0n && !first && since === undefined ? all.length : 0;
    if (number > 0n && !first) next = Math.max(0, all.length - Number(number));
    const mine = given.push(0) - 1;
    for (let told = 0; !signal.aborted; ) {
      while (node.silent && !signal.aborted) await more(signal);
      while (next < all.length && !signal.aborted && !node.silent) {
        const each = all[next++]!;
        if (msOf(each) < sinceMs) continue;
        given[mine]!++;
        yield each;
        if (first && number > 0n && ++told >= Number(number) && !follow) return;
      }
      if (node.silent) continue;
      if (!follow) return;
      await more(signal);
    }
  }
  function more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, 20);
      listeners.add(done);
      signal.addEventListener('abort', done);
      function done(): void {
        clearTimeout(timer);
        listeners.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      }
    });
  }

  const service = rpcService(Observer, {
    getFlows: { stream: flows },
    getAgentEvents: { stream: async function* () {} },
    getDebugEvents: { stream: async function* (_: GetDebugEventsRequest) {} },
    getNodes: {
      unary: () => create(GetNodesResponseSchema, { nodes: [{ name, version: 'v1', maxFlows: 10n, numFlows: 2n }] }),
    },
    getNamespaces: {
      unary: () =>
        create(GetNamespacesResponseSchema, { namespaces: [{ cluster: 'default', namespace: `ns-${name}` }] }),
    },
    serverStatus: {
      unary: () =>
        create(ServerStatusResponseSchema, {
          numFlows: 2n,
          maxFlows: 10n,
          seenFlows: 3n,
          uptimeNs: 5_000_000_000n,
          flowsRate: 1.5,
        }),
    },
  });
  const node: FakeNode = {
    name,
    get address() {
      return server?.address ?? listen;
    },
    asked,
    given,
    silent: false,
    add(...timesMs) {
      push(
        ...timesMs.map((timeMs) =>
          response(timeMs, {
            case: 'flow',
            value: { uuid: `${name}-${timeMs}`, Summary: 'x'.repeat(options.padding ?? 0) } as never,
          }),
        ),
      );
    },
    lose: (count, timeMs) =>
      push(response(timeMs, { case: 'lostEvents', value: { source: 1, numEventsLost: BigInt(count) } as never })),
    async start() {
      server = await serveRpc({ address: listen, services: [service], tls: options.tls });
      // After a restart it is where it was.
      listen = server.address;
    },
    async stop() {
      await server?.close();
      server = undefined;
    },
  };
  await node.start();
  t.after(async () => {
    await node.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  return node;
}
