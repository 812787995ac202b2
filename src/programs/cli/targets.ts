// Which agents a command talks to: a socket, one node of a context, or all of its nodes. A context is a small file that
// names a cluster's agents; labs write one. The order: --socket, --context, $WEIR_SOCKET, $WEIR_CONTEXT, the only
// context there is, /run/weir/agent.sock.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import * as http from 'node:http';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { errorText, WeirError } from '../../core/errors.ts';
import { socketNames } from '../agent/settings.ts';
import type { FlowServerTarget } from './flow-server.ts';

/** One agent: its node's name and its two sockets. */
export interface Target {
  /** Undefined when only a socket was named: the agent itself knows. */
  readonly node?: string;
  /** JSON over HTTP. */
  readonly socket: string;
  /** gRPC: flows. */
  readonly hubbleSocket: string;
  /** A server of flows by its address: then there is no agent's socket. */
  readonly server?: FlowServerTarget;
}

/** The values of the flags that `addTargetOptions` adds. */
export interface TargetOptions {
  readonly context?: string;
  readonly node?: string;
  readonly socket?: string;
}

/** The agents a command talks to. */
export interface Targets {
  readonly context?: string;
  readonly targets: readonly Target[];
}

const defaultSocket = join('/run/weir', socketNames.agent);
const timeoutMs = 10_000;

const contextSchema = z.object({
  name: z.string(),
  nodes: z.array(z.object({ name: z.string(), socket: z.string(), hubbleSocket: z.string().optional() })).min(1),
});

/** Adds --context, --node and --socket to a command. */
export function addTargetOptions(command: Command): Command {
  return command
    .option('--context <NAME>', 'the cluster, by the name of a context (default: the only one there is)')
    .option('--node <NAME>', 'one node of the context')
    .option('--socket <PATH>', 'an agent’s socket, instead of a context');
}

/** The folder that contexts are in. */
export function contextFolder(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_CONFIG_HOME ?? join(homedir(), '.config'), 'weir', 'contexts');
}

/** The names of all contexts. */
function contextNames(env: NodeJS.ProcessEnv = process.env): string[] {
  const folder = contextFolder(env);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
    .sort();
}

/** All agents that the flags and the environment name; at least one. */
export function resolveTargets(options: TargetOptions, env: NodeJS.ProcessEnv = process.env): Targets {
  if (options.socket !== undefined) return { targets: [withNode(socketTarget(options.socket), options.node)] };
  if (options.context === undefined && env.WEIR_SOCKET)
    return { targets: [withNode(socketTarget(env.WEIR_SOCKET), options.node)] };
  const names = contextNames(env);
  const name = options.context ?? (env.WEIR_CONTEXT || undefined) ?? (names.length === 1 ? names[0]! : undefined);
  if (name === undefined) {
    if (names.length === 0) return { targets: [withNode(socketTarget(defaultSocket), options.node)] };
    throw new WeirError(
      'CONFIG_INVALID',
      `there are several contexts: ${names.join(', ')}`,
      'Name one with --context or $WEIR_CONTEXT.',
    );
  }
  if (!names.includes(name)) {
    const known =
      names.length === 0 ? `There are none in ${contextFolder(env)}` : `The contexts are ${names.join(', ')}`;
    throw new WeirError('NOT_FOUND', `no context "${name}"`, `${known}.`);
  }
  const nodes = readContext(name, env);
  if (options.node === undefined) return { context: name, targets: nodes };
  const chosen = nodes.filter((each) => each.node === options.node);
  if (chosen.length === 0) {
    throw new WeirError(
      'NOT_FOUND',
      `context "${name}" has no node "${options.node}"`,
      `Its nodes are ${nodes.map((each) => each.node).join(', ')}.`,
    );
  }
  return { context: name, targets: chosen };
}

/** The one agent of a command that talks to a single one: the first node when none is named. */
export function resolveTarget(options: TargetOptions, env: NodeJS.ProcessEnv = process.env): Target {
  return resolveTargets(options, env).targets[0]!;
}

function withNode(target: Target, node: string | undefined): Target {
  return node === undefined ? target : { ...target, node };
}

/** Either socket of an agent names both: they lie in one folder. */
function socketTarget(path: string): Target {
  const folder = dirname(path);
  return basename(path) === socketNames.flows
    ? { socket: join(folder, socketNames.agent), hubbleSocket: path }
    : { socket: path, hubbleSocket: join(folder, socketNames.flows) };
}

function readContext(name: string, env: NodeJS.ProcessEnv): Target[] {
  const file = join(contextFolder(env), `${name}.json`);
  try {
    const context = contextSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
    return context.nodes.map((node) => ({
      node: node.name,
      socket: node.socket,
      hubbleSocket: node.hubbleSocket ?? join(dirname(node.socket), socketNames.flows),
    }));
  } catch (error) {
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : error;
    throw new WeirError(
      'CONFIG_INVALID',
      `the context file ${file} cannot be used: ${errorText(reason)}`,
      'Delete it, or start the lab again, which writes it anew.',
    );
  }
}

/** How a node is called in messages. */
export function targetName(target: Target): string {
  return target.node === undefined ? target.socket : `${target.node} (${target.socket})`;
}

/**
 * Asks a path of the agent's local API, such as `/v1/status`. Answers `undefined` when the agent says that nothing is
 * there. Throws AGENT_UNREACHABLE when no agent listens.
 */
export function askAgent<T>(target: Target, path: string, method: 'GET' | 'POST' = 'GET'): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string) => reject(unreachable(target, reason));
    const request = http.request({ socketPath: target.socket, path, method, timeout: timeoutMs }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', (error) => fail(errorText(error)));
      response.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        if (response.statusCode === 404) return resolve(undefined);
        if (response.statusCode !== 200)
          return reject(
            new WeirError(
              'INTERNAL',
              `the agent of ${targetName(target)} answered ${response.statusCode}: ${text.trim()}`,
            ),
          );
        try {
          resolve(JSON.parse(text) as T);
        } catch {
          fail('its answer is not JSON');
        }
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EACCES') reject(new WeirError('NOT_ROOT', `only root may use ${targetName(target)}`));
      else fail(socketProblem(error));
    });
    request.end();
  });
}

/** AGENT_UNREACHABLE for a target, with what is wrong. */
export function unreachable(target: Target, reason: string): WeirError {
  return new WeirError('AGENT_UNREACHABLE', `no answer from ${targetName(target)}: ${reason}`);
}

function socketProblem(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'there is no such socket';
  if (error.code === 'ECONNREFUSED') return 'nothing listens on the socket';
  return errorText(error);
}
