// The service of processes over all nodes: what they did merged by time, what runs united.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type GetProcessEventsRequest,
  GetProcessEventsRequestSchema,
  type GetProcessesRequest,
  GetProcessesRequestSchema,
  type GetProcessesResponse,
  GetProcessesResponseSchema,
  type Process,
  ProcessEventSchema,
  Processes,
} from '../../../proto/gen/process/process_pb.js';
import { methodPath, type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import { type MergeShared, mergeNodes } from './merge-nodes.ts';
import { askEach, nodeNews, nodeTimeoutMs, rangeOf, resumed, uncounted } from './relay-requests.ts';
import type { RelayOptions } from './relay-service.ts';
import { processShape } from './response-view.ts';

/** Of one answer; more than usual clients take, and little enough to have in memory for each who asks. */
const maxAnswerBytes = 16 << 20;

/** The service. */
export function relayProcessService(options: Omit<RelayOptions, 'version'>): RpcService {
  const { pool, access, tailBytes } = options;
  const shared: MergeShared = {
    pool,
    tailBytes,
    counts: options.counts,
    lostEvents(bytes) {
      const { event } = fromBinary(ProcessEventSchema, bytes);
      return event.case === 'lost' ? Number(event.value.count) : 0;
    },
    onLate: options.onLate,
    patience: options.patience,
  };

  return rpcService(Processes, {
    getProcessEvents: {
      async *stream(request: GetProcessEventsRequest, call: RpcCall) {
        const viewer = await access.viewer(call);
        const { request: asked, show, follow } = viewer.processes(request);
        yield* mergeNodes(
          shared,
          {
            ...rangeOf(request),
            path: methodPath(Processes.method.getProcessEvents),
            shape: processShape,
            request: (fromUs) =>
              toBinary(
                GetProcessEventsRequestSchema,
                resumed(show === undefined ? asked() : uncounted(asked()), fromUs),
              ),
            show,
            changes: follow,
            status: nodeNews(options.name, viewer.everything, ({ value, ...rest }) =>
              toBinary(
                ProcessEventSchema,
                create(ProcessEventSchema, { event: { case: 'nodeStatus', value }, ...rest }),
              ),
            ),
          },
          call.signal,
        );
      },
    },
    getProcesses: {
      async unary({ filter }: GetProcessesRequest, call: RpcCall) {
        const viewer = await access.viewer(call);
        const grant = viewer.processes(create(GetProcessEventsRequestSchema, { filter }));
        const request = toBinary(
          GetProcessesRequestSchema,
          create(GetProcessesRequestSchema, { filter: grant.request().filter }),
        );
        const path = methodPath(Processes.method.getProcesses);
        const answers: GetProcessesResponse[] = [];
        let bytes = 0;
        const missingNodes = await askEach(pool, async ({ peer, connection }) => {
          const answer = await connection!.unary(path, request, nodeTimeoutMs).catch((error: unknown) => {
            throw refusalOf(error, peer.name, viewer.everything);
          });
          bytes += answer.length;
          if (bytes > maxAnswerBytes)
            throw new RpcError(
              RpcCode.resourceExhausted,
              'the processes of all nodes are too many: ask by namespace or pod',
            );
          answers.push(fromBinary(GetProcessesResponseSchema, answer));
        });
        return create(GetProcessesResponseSchema, {
          missingNodes,
          processes: answers
            .sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1))
            .flatMap(({ processes }) => shownOf(processes, grant.showProcess)),
        });
      },
    },
  });
}

/** What a node says against a request, for who asked; any other failure is as it was. */
function refusalOf(error: unknown, node: string, everything: boolean): unknown {
  if (!(error instanceof RpcError) || error.code !== RpcCode.resourceExhausted) return error;
  // How much it has is nothing for those who see a part only.
  const why = everything ? `: ${error.message}` : '';
  return new RpcError(error.code, `${node} cannot answer that much: ask by namespace or pod${why}`);
}

function shownOf(processes: readonly Process[], show: ((process: Process) => Process | undefined) | undefined) {
  return show === undefined ? processes : processes.flatMap((each) => show(each) ?? []);
}
