// Weir's own programs in the lab: an agent in every node, an operator beside the API server. They are started here and
// never started again by themselves, so that a test or a user may end them.
import { connect } from 'node:net';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { startDetached } from './command.ts';
import { startInControlPlane } from './control-plane.ts';
import { credentialFiles } from './credentials.ts';
import { lastLines } from './logs.ts';
import { inNode, insideNode } from './node.ts';
import {
  childrenOf,
  identify,
  isAlive,
  type ProcessIdentity,
  recall,
  remember,
  signalProcess,
  stopRemembered,
} from './process-identity.ts';
import { agentFlowOptions } from './relay.ts';
import { paths, readRecord, repository } from './state.ts';
import { waitFor } from './wait.ts';

/** The paths of an agent's sockets as seen from outside its node. */
export function agentSockets(lab: string, node: string): { agent: string; hubble: string } {
  return { agent: join(paths.nodeRun(lab, node), 'agent.sock'), hubble: join(paths.nodeRun(lab, node), 'hubble.sock') };
}

function agentFile(lab: string, node: string): string {
  return paths.process(lab, `${node}-agent`);
}

/** The agent of a node, as the machine sees it; undefined when it does not run. */
export function agentProcess(lab: string, node: string): ProcessIdentity | undefined {
  const found = recall(agentFile(lab, node));
  return isAlive(found) ? found : undefined;
}

/** Starts a node's agent, with these options beyond the lab's own; returns when it runs, not when it is ready. An agent
 * that runs already is left alone. */
export async function startAgent(lab: string, node: string, options: readonly string[] = []): Promise<void> {
  if (agentProcess(lab, node) !== undefined) return;
  const argv = [
    join(insideNode.repository, 'bin/weir'),
    'agent',
    `--node-name=${node}`,
    `--kubeconfig=${join(insideNode.state, 'pki', `agent-${node}.kubeconfig`)}`,
    ...agentFlowOptions(lab, node),
    ...(readRecord(lab)?.agentOptions ?? []),
    ...options,
  ];
  const log = paths.log(lab, `${node}-agent`);
  const entering = startDetached(inNode(lab, node, argv), { logFile: log });
  // What was started enters the node's namespaces and waits there for its child, which is the agent.
  const agent = await waitFor(
    `the agent of ${node} to start`,
    async () => {
      const [child] = childrenOf(entering.pid);
      if (child !== undefined) return identify(child);
      if (!isAlive(entering)) throw hasEnded(node, log);
      return undefined;
    },
    10_000,
    5,
  );
  remember(agentFile(lab, node), agent);
}

/** Waits until a node's agent answers on its socket; an error with its last words when it ends before. */
export async function waitForAgent(lab: string, node: string, deadlineMs = 30_000): Promise<void> {
  const log = paths.log(lab, `${node}-agent`);
  await waitFor(
    `the agent of ${node} to answer (see ${log})`,
    async () => {
      if (agentProcess(lab, node) === undefined) {
        throw hasEnded(node, log);
      }
      return canConnect(agentSockets(lab, node).agent);
    },
    deadlineMs,
  );
}

function hasEnded(node: string, log: string): WeirError {
  return new WeirError('LAB_NOT_RUNNING', `the agent of ${node} has ended: ${lastLines(log)}`, `Its log: ${log}`);
}

/** Ends a node's agent: at once with SIGKILL, or by asking first. False when it did not run. */
export async function stopAgent(lab: string, node: string, how: 'kill' | 'ask'): Promise<boolean> {
  const running = agentProcess(lab, node) !== undefined;
  if (how === 'kill') signalProcess(agentProcess(lab, node), 'SIGKILL');
  await stopRemembered(agentFile(lab, node), 10_000);
  return running;
}

/** Starts the operator. One that runs already is left alone. */
export function startOperator(lab: string): void {
  if (isAlive(recall(paths.process(lab, 'operator')))) return;
  const kubeconfig = credentialFiles.kubeconfig(lab, 'operator');
  const { ipFamily: family, operatorOptions = [] } = readRecord(lab) ?? {};
  startInControlPlane(lab, 'operator', [
    join(repository, 'bin/weir'),
    'operator',
    `--kubeconfig=${kubeconfig}`,
    ...(family === 'v6' ? ['--pool-v4=none'] : family === 'v4' ? ['--pool-v6=none'] : []),
    ...operatorOptions,
  ]);
}

/** Ends the operator. */
export async function stopOperator(lab: string): Promise<void> {
  await stopRemembered(paths.process(lab, 'operator'), 10_000);
}

function canConnect(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
