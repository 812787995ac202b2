import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { createHealthChecks, healthAnswer } from './health-checks.ts';

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, () => resolve()));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The status once the server listens. */
async function ask(port: number): Promise<number> {
  for (let tries = 0; ; tries++) {
    try {
      return (await fetch(`http://127.0.0.1:${port}/healthz`)).status;
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise(setImmediate);
    }
  }
}

test('healthAnswer() says how many endpoints there are, and 503 when there is none', () => {
  const check = { service: 'shop/web', port: 30_000, localReady: 2 };
  const { status, headers, body } = healthAnswer(check);
  assert.equal(status, 200);
  assert.equal(headers['X-Load-Balancing-Endpoint-Weight'], '2');
  assert.deepEqual(JSON.parse(body).service, { namespace: 'shop', name: 'web' });
  assert.equal(healthAnswer({ ...check, localReady: 0 }).status, 503);
});

test('createHealthChecks() follows what is wanted', async () => {
  const port = await freePort();
  const checks = createHealthChecks((_port, error) => assert.fail(error));
  try {
    checks.update([{ service: 'a/b', port, localReady: 1 }]);
    assert.equal(await ask(port), 200);
    checks.update([{ service: 'a/b', port, localReady: 0 }]);
    assert.equal(await ask(port), 503);
    checks.update([]);
    await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
    assert.deepEqual(checks.ports(), []);
  } finally {
    await checks.stop();
  }
});

test('createHealthChecks() tells of a port that somebody has, and tries it again', async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '::', () => resolve()));
  const { port } = taken.address() as { port: number };
  let failed: (() => void) | undefined;
  const failure = new Promise<void>((resolve) => (failed = resolve));
  const checks = createHealthChecks(() => failed?.());
  try {
    checks.update([{ service: 'a/b', port, localReady: 1 }]);
    await failure;
    await new Promise((resolve) => taken.close(resolve));
    checks.update([{ service: 'a/b', port, localReady: 1 }]);
    assert.equal(await ask(port), 200);
  } finally {
    await checks.stop();
  }
});
