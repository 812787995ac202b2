// What processes did and which run, as somebody with rights in some namespaces gets it: what is asked of the nodes, and what
// of each answer goes on. Rights may change while a stream runs.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type GetProcessEventsRequest,
  type Process,
  type ProcessEvent,
  ProcessEventSchema,
  ProcessFilterSchema,
} from '../../../proto/gen/process/process_pb.js';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import type { AccessRights } from './rights.ts';

/** What is shown of processes. */
export interface ProcessSight {
  /** What is asked of the nodes, by the rights as they are now. */
  request(): GetProcessEventsRequest;
  /** The event to show instead of the one at `bytes[start..end)`; undefined when it is not to be seen. */
  show(bytes: Uint8Array, start: number, end: number): Uint8Array | undefined;
  /** The process as it may be shown; undefined when it is not to be seen. */
  showProcess(process: Process): Process | undefined;
}

/** That something was lost is said so often at most: how often it happens depends on what everybody does. */
const lossEveryMs = 60_000;
/** Agents take no more names in a filter. */
const maxNamespaces = 1024;
/** No namespace has such a name. */
const nowhere = '/';

/** The namespaces whose processes may be seen. */
export function processNamespaces(rights: AccessRights): string[] {
  return [...rights].filter(([, { processes }]) => processes).map(([namespace]) => namespace);
}

/** Makes the sight. Throws INVALID_ARGUMENT when more namespaces are asked for than agents take. */
export function createProcessSight(options: {
  readonly request: GetProcessEventsRequest;
  readonly rights: () => AccessRights;
  readonly nowMs?: () => number;
}): ProcessSight {
  const { request, rights, nowMs = Date.now } = options;
  const wanted = new Set(request.filter?.namespaces);
  // Agents do not see this list: they would refuse it.
  if ((request.filter?.namespaces.length ?? 0) > maxNamespaces)
    throw new RpcError(RpcCode.invalidArgument, `filter.namespaces: more than ${maxNamespaces} values`);
  let lossSaidMs = Number.NEGATIVE_INFINITY;

  function asked(): string[] {
    const own = processNamespaces(rights()).filter((each) => wanted.size === 0 || wanted.has(each));
    if (own.length === 0) return [nowhere];
    // All of them are asked for, and what is not to be seen is left out here.
    return own.length > maxNamespaces ? [] : own;
  }

  function showProcess(process: Process): Process | undefined {
    const { container } = process;
    const namespace = container?.namespace || undefined;
    if (namespace === undefined || (wanted.size > 0 && !wanted.has(namespace))) return undefined;
    const own = rights().get(namespace);
    if (own === undefined || !own.processes) return undefined;
    return own.redactions.has('arguments') ? { ...process, arguments: '', cwd: '' } : process;
  }

  function shown({ event, nodeName, time }: ProcessEvent): ProcessEvent | undefined {
    switch (event.case) {
      case 'lost':
        if (nowMs() - lossSaidMs < lossEveryMs) return undefined;
        lossSaidMs = nowMs();
        return create(ProcessEventSchema, { event: { case: 'lost', value: {} }, time: timestampFromMs(lossSaidMs) });
      case 'exec':
      case 'exit': {
        const process = event.value.process && showProcess(event.value.process);
        if (process === undefined) return undefined;
        return create(ProcessEventSchema, {
          event: { case: event.case, value: { ...event.value, process } } as ProcessEvent['event'],
          nodeName,
          time,
        });
      }
      // News of nodes are the relay's own; an agent has none to tell.
      default:
        return undefined;
    }
  }

  return {
    request: () => ({
      ...request,
      filter: create(ProcessFilterSchema, {
        ...(request.filter && { pods: request.filter.pods, binaries: request.filter.binaries }),
        namespaces: asked(),
        inContainers: true,
      }),
    }),
    show(bytes, start, end) {
      const message = fromBinary(ProcessEventSchema, bytes.subarray(start, end), { readUnknownFields: false });
      const event = shown(message);
      return event && toBinary(ProcessEventSchema, event);
    },
    showProcess,
  };
}
