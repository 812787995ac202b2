// A receiver as a process of its own: begun, killed, begun again, and ended with the test.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { WeirError } from '../../src/core/errors.ts';

const startMs = 120_000;

/** Skips visibly where what is needed cannot be had. What is had and cannot be built is a fault. */
export async function obtained<T>(t: TestContext, what: string, get: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await get();
  } catch (error) {
    if (error instanceof WeirError && error.code === 'LAB_BUILD_FAILED') throw error;
    t.skip(`${what} cannot be had: ${(error as Error).message.split('\n')[0]}`);
    return undefined;
  }
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** A program that writes to the file `log` in `folder`. */
export function spawnLogged(folder: string, argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const log = openSync(join(folder, 'log'), 'a');
  try {
    return spawn(argv[0]!, argv.slice(1), { ...options, stdio: ['ignore', log, log] });
  } finally {
    closeSync(log);
  }
}

/** True when somebody listens on a port of 127.0.0.1. */
export async function answersTcp(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } finally {
    socket.destroy();
  }
}

/** Runs a program until the test ends, and waits until it `answers`. What comes back kills it and starts it again. */
export async function keepRunning(
  t: TestContext,
  folder: string,
  start: () => ChildProcess,
  answers: () => Promise<boolean>,
): Promise<() => Promise<void>> {
  let child = start();
  async function end(): Promise<void> {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
  }
  async function whenUp(): Promise<void> {
    const until = performance.now() + startMs;
    while (!(await answers().catch(() => false))) {
      if (child.exitCode !== null || performance.now() > until)
        throw new Error(`it did not start: ${readFileSync(join(folder, 'log'), 'utf8').slice(-2_000)}`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  t.after(async () => {
    await end();
    rmSync(folder, { recursive: true, force: true });
  });
  await whenUp();
  return async () => {
    await end();
    child = start();
    await whenUp();
  };
}
