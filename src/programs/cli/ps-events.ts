// `weir ps --events`: programs that begin and processes that end, of all nodes or of one server, by time.
import { create, toJson } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  GetProcessEventsRequestSchema,
  LossSource,
  type Process,
  type ProcessEvent,
  ProcessEventSchema,
  Processes,
} from '../../../proto/gen/process/process_pb.js';
import { WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { parseTime } from './observe/flow-flags.ts';
import { timeText } from './observe/flow-text.ts';
import { followAll, mergeByTime, type Timed, tolerant } from './observe/merge-streams.ts';
import { readStream, timestampNs } from './observe/node-stream.ts';
import { failedStates, flowTargets, newsText } from './observe/observe.ts';
import type { OutputOptions } from './output.ts';
import { printable, say } from './printable.ts';
import type { ServerOptions } from './server-options.ts';
import type { Target, TargetOptions } from './targets.ts';

/** The flags that events have. */
export interface EventOptions {
  readonly follow?: boolean;
  readonly last?: number;
  readonly since?: string;
  readonly binary?: readonly string[];
  readonly host?: boolean;
}

interface NodeEvent extends Timed {
  readonly event: ProcessEvent;
}

const defaultLast = 20;

/** Prints events and answers with the exit code. `wanted` is a namespace, or a namespace and the beginning of a pod's name. */
export async function showProcessEvents(
  wanted: string | undefined,
  options: EventOptions & TargetOptions & ServerOptions & OutputOptions,
): Promise<number> {
  const { follow = false, last, since, output, server } = options;
  if (output === 'yaml')
    throw new WeirError('CONFIG_INVALID', 'events are no YAML', 'Take -o json: a line for each event.');
  const targets = flowTargets(options);
  const number = last ?? (follow || since !== undefined ? 0 : defaultLast);
  const [namespace = '', pod] = wanted?.split('/') ?? [];
  const request = create(GetProcessEventsRequestSchema, {
    number: BigInt(number),
    follow,
    ...(since !== undefined && { since: timestampFromMs(parseTime('since', since, Date.now())) }),
    filter: {
      ...(wanted !== undefined &&
        (pod === undefined ? { namespaces: [namespace] } : { pods: [`${namespace}/${pod}`] })),
      binaries: [...(options.binary ?? [])],
      // Beside the pods a node is always busy.
      inContainers: options.host !== true,
    },
  });
  let failures = 0;
  const streams = targets.map((target) =>
    tolerant(eventsOf(target, request), (error) => {
      if (server !== undefined) throw error;
      failures++;
      say(error.message);
    }),
  );
  const show = ({ event }: NodeEvent): Promise<void> | undefined => {
    const news = event.event.case === 'nodeStatus' ? event.event.value : undefined;
    if (news !== undefined && failedStates.has(news.stateChange)) failures++;
    // News of nodes are no events: of text they would be a line among lines.
    if (news !== undefined && output !== 'json') {
      const words = newsText(news);
      if (words !== undefined) say(words);
      return undefined;
    }
    const text =
      output === 'json'
        ? JSON.stringify(toJson(ProcessEventSchema, event, { useProtoFieldName: true }))
        : eventText(event, targets.length > 1 || server !== undefined);
    if (process.stdout.write(`${text}\n`)) return undefined;
    return new Promise((resolve) => process.stdout.once('drain', resolve));
  };
  if (follow || server !== undefined) await followAll(streams.map(oneByOne), show);
  else {
    const items: NodeEvent[] = [];
    for await (const item of mergeByTime(streams)) items.push(item);
    for (const item of number > 0 ? items.slice(-number) : items) await show(item);
  }
  return failures === 0 ? exitCodes.ok : exitCodes.unreachable;
}

async function* oneByOne<T>(stream: AsyncIterable<T>): AsyncGenerator<readonly T[]> {
  for await (const item of stream) yield [item];
}

async function* eventsOf(target: Target, request: ReturnType<typeof create>): AsyncGenerator<NodeEvent> {
  for await (const event of readStream(target, Processes.method.getProcessEvents, request))
    yield { timeNs: timestampNs(event.time), event };
}

/** `Nov 22 17:30:01.123 [node1] shop/web-0 exec 4711 /usr/bin/curl http://db`. */
export function eventText(message: ProcessEvent, nodeNames: boolean): string {
  const { event } = message;
  const head = `${timeText(message.time)}${nodeNames ? ` [${message.nodeName}]` : ''}`;
  switch (event.case) {
    case 'exec':
      return printable(`${head} ${who(event.value.process)} exec ${what(event.value.process)}`);
    case 'exit': {
      const { code, signal, process } = event.value;
      const how = signal > 0 ? `signal ${signal}` : `code ${code}`;
      return printable(`${head} ${who(process)} exit ${what(process)} (${how})`);
    }
    case 'lost': {
      // Who may see a part only is not told how many.
      if (event.value.source === LossSource.UNKNOWN) return printable(`${head} EVENTS LOST`);
      const why =
        event.value.source === LossSource.KERNEL_RING ? 'the kernel’s ring was full' : 'this reader was too slow';
      return printable(`${head} EVENTS LOST: ${event.value.count}, because ${why}`);
    }
    default:
      return printable(head);
  }
}

function who(process: Process | undefined): string {
  const container = process?.container;
  if (container === undefined) return '(node)';
  return container.pod === '' ? `container ${container.id.slice(0, 12)}` : `${container.namespace}/${container.pod}`;
}

function what(process: Process | undefined): string {
  return `${process?.pid ?? '?'} ${process?.binary ?? ''} ${process?.arguments ?? ''}`.trim();
}
