// `weir lab node NAME ...` and `weir lab operator ...`.
import type { Command, Option } from 'commander';
import { WeirError } from '../src/core/errors.ts';
import { startAgent, startOperator, stopAgent, stopOperator, waitForAgent } from './agents.ts';
import { connectApi } from './api.ts';
import { runInteractive } from './command.ts';
import { inNode, stopNode } from './node.ts';
import { routePods } from './pod-routes.ts';
import { terminalProgress } from './progress.ts';
import { startRelay, stopRelay } from './relay.ts';
import { requireLab, requireNode } from './state.ts';
import { restartNode } from './up.ts';

const nodeActions = ['exec', 'kill-agent', 'start-agent', 'restart-agent', 'stop-agent', 'stop', 'start'] as const;

/** Adds `node NAME exec|kill-agent|start-agent|restart-agent|stop-agent|stop|start`. */
export function addNodeCommand(program: Command, nameOption: () => Option): void {
  program
    .command('node')
    .description('look into a node, or end and start it or its agent')
    .addOption(nameOption())
    .argument('<node>', 'such as node1')
    .argument('<action>', nodeActions.join(', '))
    .argument('[command...]', 'what exec runs')
    .passThroughOptions()
    .addHelpText(
      'after',
      `
Actions:
  exec -- COMMAND   run a command in the node's namespaces, as root of the node
  kill-agent        end the agent with SIGKILL; it stays dead
  stop-agent        ask the agent to end; it stays ended
  start-agent       start the agent; with options after --, if any
  restart-agent     ask the agent to end, and start it; options as with start-agent
  stop              end the node like a machine whose power fails
  start             start a stopped node

Examples:
  weir lab node node1 exec -- ip route
  weir lab node node1 exec -- ctr -n k8s.io container list
  weir lab node node2 kill-agent
  weir lab node node2 restart-agent -- --lb-mode dsr`,
    )
    .action(async (node: string, action: string, rest: string[], options: { name: string }) => {
      const { lab, command } = splitRest(rest, options.name);
      const record = requireLab(lab);
      const spec = requireNode(record, node);
      const progress = terminalProgress();
      switch (action as (typeof nodeActions)[number]) {
        case 'exec':
          if (command.length === 0) throw new WeirError('LAB_ARGUMENT_INVALID', 'exec needs a command');
          process.exitCode = await runInteractive(inNode(lab, node, command), { HOME: '/root' });
          return;
        case 'kill-agent':
        case 'stop-agent':
          if (!(await stopAgent(lab, node, action === 'kill-agent' ? 'kill' : 'ask'))) {
            throw new WeirError('LAB_NOT_RUNNING', `the agent of ${node} does not run`);
          }
          return;
        case 'restart-agent':
        case 'start-agent':
          if (action === 'restart-agent') await stopAgent(lab, node, 'ask');
          await progress.phase(`the agent of ${node} answers`, async () => {
            await startAgent(lab, node, command);
            await waitForAgent(lab, node);
          });
          return;
        case 'stop':
          await progress.phase(`${node} has ended`, () => stopNode(lab, node));
          return;
        case 'start':
          await progress.phase(`${node} has started`, () => restartNode(record, spec, progress));
          if (record.agents) await routeAgain(record);
          return;
        default:
          throw new WeirError(
            'LAB_ARGUMENT_INVALID',
            `a node has no action "${action}"; it has ${nodeActions.join(', ')}`,
          );
      }
    });
}

/**
 * What follows the action: `--name LAB` may stand there too, and `--` before the command. Whatever else begins with a
 * dash belongs to the command.
 */
export function splitRest(rest: readonly string[], name: string): { lab: string; command: string[] } {
  let lab = name;
  let command = [...rest];
  if (command[0]?.startsWith('--name=')) {
    lab = command[0].slice('--name='.length);
    command = command.slice(1);
  } else if (command[0] === '--name' && command[1] !== undefined) {
    lab = command[1];
    command = command.slice(2);
  }
  if (command[0] === '--') command = command.slice(1);
  return { lab, command };
}

async function routeAgain(record: Parameters<typeof routePods>[1]): Promise<void> {
  const api = connectApi(record);
  try {
    await routePods(api, record);
  } finally {
    api.close();
  }
}

/** Adds `operator start|stop|restart`. */
export function addOperatorCommand(program: Command, nameOption: () => Option): void {
  program
    .command('operator')
    .description('end or start the cluster’s operator')
    .addOption(nameOption())
    .argument('<action>', 'start, stop or restart')
    .action(async (action: string, options: { name: string }) => {
      const { name } = requireLab(options.name);
      if (!['start', 'stop', 'restart'].includes(action))
        throw new WeirError(
          'LAB_ARGUMENT_INVALID',
          `the operator has no action "${action}"; it has start, stop, restart`,
        );
      if (action !== 'start') await stopOperator(name);
      if (action !== 'stop') startOperator(name);
    });
}

/** Adds `relay start|stop|restart`. */
export function addRelayCommand(program: Command, nameOption: () => Option): void {
  program
    .command('relay')
    .description('end or start the relay, which has the flows of all nodes')
    .addOption(nameOption())
    .argument('<action>', 'start, stop or restart')
    .action(async (action: string, options: { name: string }) => {
      const { name } = requireLab(options.name);
      if (!['start', 'stop', 'restart'].includes(action))
        throw new WeirError('LAB_ARGUMENT_INVALID', `the relay has no action "${action}"; it has start, stop, restart`);
      if (action !== 'start') await stopRelay(name);
      if (action !== 'stop') startRelay(name);
    });
}
