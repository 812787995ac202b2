// `weir top` at work: follows the flows of all nodes and shows whose they are.
import { exitCodes } from '../../../core/exit-codes.ts';
import { isInteractive, openLiveScreen } from '../live-screen.ts';
import { flowRequest } from '../observe/flow-flags.ts';
import { followNode, type NodeFlow } from '../observe/node-stream.ts';
import { failedStates, flowTargets, hasPolicy, newsText } from '../observe/observe.ts';
import type { FilterFlag } from '../observe-command.ts';
import { terminalColumns } from '../output.ts';
import { say } from '../printable.ts';
import type { ServerOptions } from '../server-options.ts';
import type { TargetOptions } from '../targets.ts';
import type { Grouping, Sorting } from './choices.ts';
import { createTopWindow, sortRows, topText } from './top-table.ts';
import { afterKey, type TopState, topScreen } from './top-view.ts';

/** All flags of the command. */
export interface TopFlags extends TargetOptions, ServerOptions {
  readonly by: Grouping;
  readonly sort: Sorting;
  readonly seconds: number;
  readonly limit: number;
  readonly output: 'table' | 'json';
  readonly filters: readonly FilterFlag[];
  readonly trailingNot?: boolean;
}

/** What a live table is of. */
const liveWindowMs = 10_000;
/** Connections are reported every 5 s: so far back what to count from is found. */
const backlogMs = 7_000;

/** Runs the command and answers with its exit code. */
export async function top(flags: TopFlags): Promise<number> {
  const targets = flowTargets(flags);
  const live = flags.output === 'table' && isInteractive();
  const startedMs = Date.now();
  const since = new Date(startedMs - backlogMs).toISOString();
  const { request, policies } = flowRequest(
    { filters: flags.filters, trailingNot: flags.trailingNot, follow: true, since },
    startedMs,
  );
  const window = createTopWindow(live ? liveWindowMs : Number.POSITIVE_INFINITY, startedMs);
  const away = new Set<string>();
  let lost = 0;
  let news = '';
  const tell = (message: string) => {
    news = message;
    if (!live) say(message);
  };
  const take = (item: NodeFlow) => {
    const { responseTypes } = item.response;
    if (responseTypes.case === 'nodeStatus') {
      const { stateChange, nodeNames } = responseTypes.value;
      for (const name of nodeNames)
        if (failedStates.has(stateChange)) away.add(name);
        else away.delete(name);
      const message = newsText(responseTypes.value);
      if (message !== undefined) tell(message);
    }
    if (responseTypes.case === 'lostEvents') lost += Number(responseTypes.value.numEventsLost);
    if (responseTypes.case === 'flow' && hasPolicy(item, policies)) window.add(responseTypes.value, Date.now());
  };
  const follow = async (target: (typeof targets)[number]) => {
    const name = target.node ?? target.socket;
    const onChange = (message: string, state: 'away' | 'back') => {
      if (state === 'back') away.delete(name);
      else away.add(name);
      tell(message);
    };
    for await (const piece of followNode(target, request, onChange, targets.length))
      for (const item of piece) take(item);
  };
  const failed = Promise.all(targets.map(follow)).then(() => new Promise<never>(() => {}));
  const ended = live ? watch() : new Promise((resolve) => setTimeout(resolve, flags.seconds * 1000));
  await Promise.race([ended, failed]);
  if (!live) print();
  return away.size === 0 || live ? exitCodes.ok : exitCodes.unreachable;

  function print(): void {
    const rows = sortRows(window.rows(flags.by, Date.now()), flags.sort).slice(0, flags.limit);
    if (flags.output === 'json') {
      const answer = { seconds: flags.seconds, by: flags.by, lostEvents: lost, rows };
      process.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
      return;
    }
    process.stdout.write(topText(rows, { ...flags, terminalColumns: terminalColumns() }));
    if (lost > 0) say(`${lost} events were lost`);
  }

  /** Shows the table until it is told to quit. */
  function watch(): Promise<void> {
    let state: TopState = { by: flags.by, sort: flags.sort, paused: false, offset: 0, done: false };
    let atMs = Date.now();
    let rows = window.rows(state.by, atMs);
    return new Promise((resolve, reject) => {
      const screen = openLiveScreen({
        draw(columns, lines) {
          if (!state.paused) {
            atMs = Date.now();
            rows = window.rows(state.by, atMs);
          }
          const seconds = Math.max(1, Math.round(Math.min(liveWindowMs, atMs - startedMs) / 1000));
          return topScreen(state, rows, { columns, lines }, { windowSeconds: seconds, lost, news });
        },
        onKey(key) {
          const before = state;
          state = afterKey(state, key);
          // What was paused is shown by something else all the same.
          if (state.paused && state.by !== before.by) rows = window.rows(state.by, atMs);
          // Scrolling ends with the last row.
          state = { ...state, offset: Math.min(state.offset, Math.max(0, rows.length - 1)) };
          if (state.done) end();
        },
      });
      const end = () => {
        screen.close();
        resolve();
      };
      for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, end);
      failed.catch((error) => {
        screen.close();
        reject(error);
      });
    });
  }
}
