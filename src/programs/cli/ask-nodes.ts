// Asks all agents that the flags name, side by side. One that does not answer is a line on stderr and exit code 4; what
// the others say is shown all the same.
import { WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import type { HealthView } from '../agent/status-view.ts';
import { errorLine } from './error-line.ts';
import { exitCodeOf } from './exit-code.ts';
import { askAgent, resolveTargets, type Target, type TargetOptions } from './targets.ts';

/** What one node said; `undefined` when there is nothing at the path. */
export interface NodeAnswer<T> {
  readonly node: string;
  readonly value: T | undefined;
}

/** The answers of all nodes, in the order of the context. */
export async function askNodes<T>(
  options: TargetOptions,
  path: string,
  method: 'GET' | 'POST' = 'GET',
): Promise<NodeAnswer<T>[]> {
  return (await askEach<T>(options, path, method)).flatMap((answer) => ('error' in answer ? [] : answer));
}

/** The same, with the nodes that did not answer, for commands that show those too. */
export async function askEach<T>(
  options: TargetOptions,
  path: string,
  method: 'GET' | 'POST' = 'GET',
): Promise<(NodeAnswer<T> | { readonly node: string; readonly error: WeirError })[]> {
  const { targets } = resolveTargets(options);
  const answers = await Promise.allSettled(
    targets.map(async (target) => ({ node: await nodeName(target), value: await askAgent<T>(target, path, method) })),
  );
  return answers.map((answer, i) => {
    if (answer.status === 'fulfilled') return answer.value;
    if (!(answer.reason instanceof WeirError)) throw answer.reason;
    process.stderr.write(errorLine(answer.reason));
    process.exitCode = exitCodeOf(answer.reason);
    return { node: targets[i]!.node ?? targets[i]!.socket, error: answer.reason };
  });
}

/** When only a socket was named the agent itself knows whose it is. */
async function nodeName(target: Target): Promise<string> {
  if (target.node !== undefined) return target.node;
  return (await askAgent<HealthView>(target, '/v1/health'))?.node ?? target.socket;
}

/** For commands that ask for one thing: NOT_FOUND, unless a node that did not answer may have it. */
export function notFound(what: string, hint: string): WeirError | undefined {
  return process.exitCode === undefined || process.exitCode === exitCodes.ok
    ? new WeirError('NOT_FOUND', what, hint)
    : undefined;
}
