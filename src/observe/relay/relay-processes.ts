// The service of processes over all nodes: what they did merged by time, what runs united.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type GetProcessEventsRequest,
  GetProcessEventsRequestSchema,
  type GetProcessesRequest,
  GetProcessesRequestSchema,
  GetProcessesResponseSchema,
  type Process,
  ProcessEventSchema,
  Processes,
} from '../../../proto/gen/process/process_pb.js';
import { methodPath, type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import { type MergeQuery, type MergeShared, mergeNodes } from './merge-nodes.ts';
import { askAll, nodeStates, nodeTimeoutMs, rangeOf, resumed, uncounted } from './relay-requests.ts';
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

  /** News of nodes. Why one is not reached is nothing for those who see a part only. */
  const statusFor =
    (everything: boolean): MergeQuery['status'] =>
    (news, nodes, message) =>
      toBinary(
        ProcessEventSchema,
        create(ProcessEventSchema, {
          event: {
            case: 'nodeStatus',
            value: { stateChange: nodeStates[news], nodeNames: [...nodes], message: everything ? message : '' },
          },
          nodeName: options.name,
          time: timestampFromMs(Date.now()),
        }),
      );

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
            status: statusFor(viewer.everything),
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
        let refusal: RpcError | undefined;
        let bytes = 0;
        const answers = await askAll(pool, async ({ connection }) => {
          try {
            const answer = await connection!.unary(path, request, nodeTimeoutMs);
            bytes += answer.length;
            return bytes > maxAnswerBytes ? undefined : fromBinary(GetProcessesResponseSchema, answer);
          } catch (error) {
            // What one node does not understand, none does: it is the client's mistake.
            if (error instanceof RpcError && error.code === RpcCode.invalidArgument) refusal = error;
            throw error;
          }
        });
        if (refusal !== undefined) throw refusal;
        if (bytes > maxAnswerBytes)
          throw new RpcError(
            RpcCode.resourceExhausted,
            'the processes of all nodes are too many: ask by namespace or pod',
          );
        return create(GetProcessesResponseSchema, {
          processes: answers
            .filter((each) => each !== undefined)
            .sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1))
            .flatMap(({ processes }) => shownOf(processes, grant.showProcess)),
        });
      },
    },
  });
}

function shownOf(processes: readonly Process[], show: ((process: Process) => Process | undefined) | undefined) {
  return show === undefined ? processes : processes.flatMap((each) => show(each) ?? []);
}
