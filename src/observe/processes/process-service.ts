// The service of processes over a node's table and its last events.
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema, timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type GetProcessEventsRequest,
  type GetProcessesRequest,
  GetProcessesResponseSchema,
  LossSource,
  type ProcessEvent,
  ProcessEventSchema,
  Processes,
  type ProcessFilter,
  type ProcessSchema,
} from '../../../proto/gen/process/process_pb.js';
import { type RpcCall, type RpcService, rpcService } from '../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import type { ProcessEvents, ProcessItem } from './process-events.ts';
import { compileProcessPattern } from './process-pattern.ts';
import type { ProcessRow } from './process-row.ts';

/** What the service hands out. */
export interface ProcessServiceSource {
  readonly nodeName: string;
  readonly events: ProcessEvents;
  /** All that run, after what the kernel has told of them was taken. */
  readonly running: () => readonly ProcessRow[];
}

const maxValues = 1024;

/** The service. */
export function processService({ nodeName, events, running }: ProcessServiceSource): RpcService {
  return rpcService(Processes, {
    getProcessEvents: {
      async *stream(request: GetProcessEventsRequest, { signal }: RpcCall) {
        const match = compileProcessFilter(request.filter);
        const { number, follow, since } = request;
        const query = {
          number: number > BigInt(Number.MAX_SAFE_INTEGER) ? 0 : Number(number),
          follow,
          ...(since && { sinceMs: exactMs(since) }),
          match: ({ process }: { process: ProcessRow }) => match(process),
        };
        for await (const item of events.read(query, signal)) yield eventMessage(item, nodeName);
      },
    },
    getProcesses: {
      unary(request: GetProcessesRequest) {
        const match = compileProcessFilter(request.filter);
        return create(GetProcessesResponseSchema, {
          nodeName,
          processes: running()
            .filter(match)
            .map((row) => ({ ...processMessage(row), nodeName })),
        });
      },
    },
  });
}

/** A predicate for a filter. Throws INVALID_ARGUMENT with the field's name for what is not understood. */
function compileProcessFilter(filter: ProcessFilter | undefined): (process: ProcessRow) => boolean {
  if (filter === undefined) return () => true;
  const { namespaces, pods, binaries, inContainers } = filter;
  for (const [name, values] of Object.entries({ namespaces, pods, binaries }))
    if (values.length > maxValues) throw refused(`filter.${name}: more than ${maxValues} values`);
  const programs = binaries.map((text) => {
    const match = text === '' ? undefined : compileProcessPattern(text);
    if (match === undefined) throw refused('filter.binaries: a pattern is empty, or longer than 512 characters');
    return match;
  });
  const inPod = pods.map((text) => {
    const slash = text.indexOf('/');
    const namespace = slash < 0 ? 'default' : text.slice(0, slash);
    const prefix = text.slice(slash + 1);
    return ({ container }: ProcessRow) =>
      container !== undefined &&
      container.pod !== '' &&
      (namespace === '' || container.namespace === namespace) &&
      container.pod.startsWith(prefix);
  });
  return (process) =>
    (!inContainers || process.container !== undefined) &&
    (namespaces.length === 0 || namespaces.includes(process.container?.namespace || '\0')) &&
    (inPod.length === 0 || inPod.some((match) => match(process))) &&
    (programs.length === 0 || programs.some((match) => match(process)));
}

function refused(reason: string): RpcError {
  return new RpcError(RpcCode.invalidArgument, reason);
}

function eventMessage(item: ProcessItem, nodeName: string): ProcessEvent {
  const about = { nodeName, time: timestampFromUs(Math.round(item.timeMs * 1000)) };
  switch (item.kind) {
    case 'exec':
      return create(ProcessEventSchema, {
        ...about,
        event: { case: 'exec', value: { process: processMessage(item.process) } },
      });
    case 'exit': {
      const { code = 0, signal = 0 } = item.process.exit ?? {};
      return create(ProcessEventSchema, {
        ...about,
        event: { case: 'exit', value: { process: processMessage(item.process), code, signal } },
      });
    }
    case 'lost':
    case 'overwritten':
      return create(ProcessEventSchema, {
        ...about,
        event: {
          case: 'lost',
          value: {
            source: item.kind === 'lost' ? LossSource.KERNEL_RING : LossSource.SLOW_READER,
            count: BigInt(item.count),
          },
        },
      });
  }
}

function processMessage(row: ProcessRow): MessageInitShape<typeof ProcessSchema> {
  const { container } = row;
  return {
    execId: row.execId,
    parentExecId: row.parent?.execId ?? '',
    pid: row.pid,
    uid: row.uid,
    binary: wellFormed(row.binary),
    arguments: wellFormed(row.arguments),
    cwd: wellFormed(row.cwd),
    startTime: timestampFromMs(row.startMs),
    execTime: timestampFromMs(row.execMs),
    ...(container && {
      container: {
        id: container.id,
        name: container.name,
        image: container.image,
        namespace: container.namespace,
        pod: container.pod,
        podUid: container.podUid,
      },
    }),
  };
}

/** Text of the wire has to be Unicode, and half of a pair is none. */
function wellFormed(text: string): string {
  return text.toWellFormed();
}

function timestampFromUs(us: number): Timestamp {
  const seconds = Math.floor(us / 1e6);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (us - seconds * 1e6) * 1000 });
}

/** Milliseconds, to the microsecond; half of one less, as fractions of events are rounded. */
function exactMs({ seconds, nanos }: Timestamp): number {
  return (Number(seconds) * 1e6 + Math.floor(nanos / 1000) - 0.5) / 1000;
}
