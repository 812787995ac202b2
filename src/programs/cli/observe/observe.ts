// `weir observe` at work: asks the nodes, merges what they tell, prints it.
import type { Policy } from '../../../../proto/gen/flow/flow_pb.js';
import type { GetFlowsRequest } from '../../../../proto/gen/observer/observer_pb.js';
import { NodeState, type NodeStatusEvent } from '../../../../proto/gen/relay/relay_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { exitCodes } from '../../../core/exit-codes.ts';
import { FilterError } from '../../../observe/flows/filter-values.ts';
import { flowShape, ResponseKind, readResponse, view } from '../../../observe/relay/response-view.ts';
import { flowServerTarget } from '../flow-server.ts';
import { isInteractive, openLiveScreen } from '../live-screen.ts';
import type { FilterFlag } from '../observe-command.ts';
import { terminalColumns } from '../output.ts';
import { type PiecewiseOutput, piecewiseOutput } from '../piecewise-output.ts';
import { say } from '../printable.ts';
import type { ServerOptions } from '../server-options.ts';
import { resolveTargets, type Target, type TargetOptions } from '../targets.ts';
import { readFlowFile } from './flow-file.ts';
import { flowRequest, type ObserveOptions } from './flow-flags.ts';
import { createFlowCounter, type FlowCounter, statsText } from './flow-stats.ts';
import { type FlowFormat, flowJsonPrinter, flowPrinter } from './flow-text.ts';
import { followAll, mergeByTime, tolerant } from './merge-streams.ts';
import { compileMessageFilters } from './message-filter.ts';
import { followNode, type NodeFlow, readNode } from './node-stream.ts';

/** All flags of the command. */
export interface ObserveFlags extends ObserveOptions, TargetOptions, ServerOptions {
  readonly output: FlowFormat;
  readonly color: 'auto' | 'always' | 'never';
  readonly printProcess?: boolean;
  readonly stats?: boolean;
  /** `-`: standard input. */
  readonly inputFile?: string;
}

/** Rows of each of the tables that --stats prints. */
const statsRows = 20;
/** Terminals of so many columns have room for processes. */
const roomyColumns = 160;

/** Runs the command and answers with its exit code. */
export async function observe(flags: ObserveFlags): Promise<number> {
  const out = piecewiseOutput();
  try {
    return await observeTo(out, flags);
  } finally {
    await out.flush();
  }
}

async function observeTo(out: PiecewiseOutput, flags: ObserveFlags): Promise<number> {
  if (flags.stats && flags.fieldMask !== undefined)
    throw new WeirError('CONFIG_INVALID', '--field-mask leaves out what --stats counts', 'Give one of them.');
  const { inputFile } = flags;
  if (inputFile !== undefined && (flags.follow || flags.server !== undefined))
    throw new WeirError(
      'CONFIG_INVALID',
      '--input-file is read to its end, and nobody is asked',
      'Leave out --follow and --server.',
    );
  const targets = inputFile === undefined ? flowTargets(flags) : [];
  // Numbers are of all there is, unless some of it is asked for.
  const ranged = [flags.last, flags.first, flags.since, flags.follow].some((each) => each !== undefined);
  const all = flags.all || ((flags.stats || inputFile !== undefined) && !ranged);
  const { request, policies } = flowRequest({ ...flags, all }, Date.now());
  const format = flags.output;
  if (flags.fieldMask !== undefined && flags.fieldMask.length > 0 && !format.startsWith('json')) {
    throw new WeirError(
      'CONFIG_INVALID',
      '--field-mask leaves out what the text formats print',
      'Give -o json as well.',
    );
  }
  const colors =
    flags.color === 'always' || (flags.color === 'auto' && process.stdout.isTTY === true && !process.env.NO_COLOR);
  const processes = flags.printProcess ?? (process.stdout.isTTY === true && process.stdout.columns >= roomyColumns);
  const print = flowPrinter(format, {
    colors,
    nodeNames: targets.length !== 1 || flags.server !== undefined,
    processes,
  });
  const inFile = inputFile === undefined ? undefined : fileFilter(request);
  const wanted = (item: NodeFlow) => hasPolicy(item, policies) && (inFile === undefined || inFile(item));
  const counter = flags.stats ? createFlowCounter() : undefined;
  let failures = 0;
  // Where nobody has to look into a flow, its text is made from its bytes.
  const printBytes = counter === undefined && policies.length === 0 ? flowJsonPrinter(format) : undefined;
  const show = (item: NodeFlow): Promise<void> | undefined => {
    if (printBytes !== undefined && item.bytes !== undefined && isItem(item.bytes))
      return out.write(printBytes(item.bytes));
    const { responseTypes } = item.response;
    if (responseTypes.case === 'nodeStatus') {
      if (failedStates.has(responseTypes.value.stateChange)) failures++;
      // News of nodes are no flows: of text they would be a line among lines.
      if (!format.startsWith('json')) {
        const news = newsText(responseTypes.value);
        if (news !== undefined) say(news);
        return undefined;
      }
    }
    if (counter !== undefined) {
      if (responseTypes.case === 'lostEvents') counter.lose(Number(responseTypes.value.numEventsLost));
      if (responseTypes.case === 'flow' && wanted(item)) counter.add(responseTypes.value);
      return undefined;
    }
    return wanted(item) ? out.write(print(item.response)) : undefined;
  };

  if (flags.follow) {
    const following = followAll(
      targets.map((target) => followNode(target, request, counter === undefined ? say : () => {}, targets.length)),
      show,
    );
    await (counter === undefined ? following : Promise.race([following, untilStopped(counter)]));
    if (counter !== undefined) await printStats(out, counter, format);
    return exitCodes.ok;
  }
  const streams =
    inputFile !== undefined
      ? [readFlowFile(inputFile, say)]
      : targets.map((target) =>
          tolerant(readNode(target, request, targets.length), (error) => {
            failures++;
            if (targets.length === 1) throw error;
            say(error.message);
          }),
        );
  const last =
    flags.last ?? (Number(request.number) > 0 || policies.length > 0 ? defaultLast({ ...flags, all }) : undefined);
  if (last === undefined || flags.first !== undefined)
    await showAll(mergeByTime(streams), show, flags.first ?? Number.POSITIVE_INFINITY, wanted);
  else for (const item of await lastOf(mergeByTime(streams), last, wanted)) await show(item);
  if (counter !== undefined) await printStats(out, counter, format);
  if (inputFile === undefined && flags.server === undefined && failures === targets.length)
    throw new WeirError('AGENT_UNREACHABLE', 'no node answers');
  return failures === 0 ? exitCodes.ok : exitCodes.unreachable;
}

/** Whether a response has a flow, and not news or a loss. */
function isItem(bytes: Uint8Array): boolean {
  readResponse(bytes, 0, bytes.length, flowShape);
  return view.kind === ResponseKind.item;
}

/** Shows the counts on a terminal until it is told to quit; without one, until somebody ends the command. */
function untilStopped(counter: FlowCounter): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      screen?.close();
      resolve();
    };
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, end);
    const screen = !isInteractive()
      ? undefined
      : openLiveScreen({
          draw: (columns, lines) => [
            ...statsText(counter.stats(), { most: Math.max(3, Math.floor((lines - 12) / 3)), terminalColumns: columns })
              .split('\n')
              .slice(0, lines - 2),
            'q quit',
          ],
          onKey(key) {
            if (key === 'q' || key === 'interrupt') end();
          },
        });
  });
}

async function printStats(out: PiecewiseOutput, counter: FlowCounter, format: FlowFormat): Promise<void> {
  const stats = counter.stats();
  const text = format.startsWith('json')
    ? `${JSON.stringify(stats, undefined, 2)}\n`
    : statsText(stats, { most: statsRows, terminalColumns: terminalColumns() });
  await out.write(text);
}

/** The filters of a request, for flows that no agent has filtered. What is no flow is always wanted. */
function fileFilter(request: GetFlowsRequest): (item: NodeFlow) => boolean {
  try {
    const matches = compileMessageFilters(request);
    return ({ response: { responseTypes } }) => responseTypes.case !== 'flow' || matches(responseTypes.value);
  } catch (error) {
    if (error instanceof FilterError) throw new WeirError('CONFIG_INVALID', error.message);
    throw error;
  }
}

const serverFlags = [
  'tls',
  'tlsAllowInsecure',
  'tlsCaCertFiles',
  'tlsClientCertFile',
  'tlsClientKeyFile',
  'tlsServerName',
  'tokenFile',
] as const satisfies readonly (keyof ServerOptions)[];

/** Whose flows are read: the agents of a context, or one server. */
export function flowTargets(flags: TargetOptions & ServerOptions): readonly Target[] {
  if (flags.server === undefined) {
    const given = serverFlags.filter((name) => flags[name] !== undefined && flags[name] !== false);
    if (given.length > 0) {
      const flag = given[0]!.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      throw new WeirError('CONFIG_INVALID', `--${flag} goes with --server`, 'Name the server, or leave the flag out.');
    }
    return resolveTargets(flags).targets;
  }
  const server = flowServerTarget({ ...flags, server: flags.server });
  return [{ node: flags.server, socket: flags.server, hubbleSocket: '', server }];
}

/** Without any range, and with a policy to look for, the last 20. */
function defaultLast(flags: ObserveFlags): number | undefined {
  return flags.all || flags.since !== undefined || flags.first !== undefined ? undefined : 20;
}

async function showAll(
  items: AsyncIterable<NodeFlow>,
  show: (item: NodeFlow) => Promise<void> | undefined,
  most: number,
  wanted: (item: NodeFlow) => boolean,
): Promise<void> {
  let count = 0;
  for await (const item of items) {
    await show(item);
    // Without an end nobody has to look into what is passed on as it came.
    if (most === Number.POSITIVE_INFINITY) continue;
    if (item.response.responseTypes.case === 'flow' && wanted(item) && ++count >= most) return;
  }
}

/** The last `count` flows, with what else was said among them. */
async function lastOf(
  items: AsyncIterable<NodeFlow>,
  count: number,
  wanted: (item: NodeFlow) => boolean,
): Promise<NodeFlow[]> {
  let kept: NodeFlow[] = [];
  const trim = () => {
    let flows = 0;
    let from = kept.length;
    while (from > 0 && flows < count) if (kept[--from]!.response.responseTypes.case === 'flow') flows++;
    kept = kept.slice(from);
  };
  for await (const item of items) {
    if (!wanted(item)) continue;
    kept.push(item);
    if (kept.length > 2 * count + 1024) trim();
  }
  trim();
  return kept;
}

/** Whether one of the policies spoke. What is no flow is always wanted. */
export function hasPolicy({ response }: NodeFlow, flags: readonly FilterFlag[]): boolean {
  if (flags.length === 0) return true;
  if (response.responseTypes.case !== 'flow') return true;
  const flow = response.responseTypes.value;
  const spoke = [flow.egressAllowedBy, flow.ingressAllowedBy, flow.egressDeniedBy, flow.ingressDeniedBy].flat();
  const named = (flag: FilterFlag) =>
    spoke.some((policy: Policy) => `${policy.namespace}/${policy.name}` === flag.value);
  const only = flags.filter((each) => !each.not);
  return (only.length === 0 || only.some(named)) && !flags.some((each) => each.not && named(each));
}

/** States of nodes whose flows are missing. */
export const failedStates = new Set([NodeState.NODE_UNAVAILABLE, NodeState.NODE_ERROR]);

/** What a relay says of its nodes; nothing when they are just there. */
export function newsText({ stateChange, nodeNames, message }: NodeStatusEvent): string | undefined {
  const names = nodeNames.length > 5 ? `${nodeNames.length} nodes` : nodeNames.join(', ');
  const reason = message === '' ? '' : `: ${message}`;
  switch (stateChange) {
    case NodeState.NODE_UNAVAILABLE:
      return `not reached: ${names}${reason}`;
    case NodeState.NODE_GONE:
      return `gone: ${names}`;
    case NodeState.NODE_ERROR:
      return `trouble with ${names}${reason}`;
    default:
      return undefined;
  }
}
