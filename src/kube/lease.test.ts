import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Clock, createFakeClock } from '../core/clock.ts';
import { createKubeClient, type KubeClient } from './client.ts';
import { type Lease, type LeaseState, wantLease } from './lease.ts';
import type { LeaseFeed, LeaseNews, LeaseObject } from './lease-feed.ts';

const terms = { durationMs: 1000, renewMs: 300 };

/** An error as the client has it: hasStatus() looks at its class, so the real client has to make it. */
async function apiError(status: number): Promise<Error> {
  const http = await import('node:http');
  const server = http.createServer((_request, response) => response.writeHead(status).end('{}'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = createKubeClient({ server: `http://127.0.0.1:${(server.address() as { port: number }).port}` });
  const error = await client.request('GET', '/').then(
    () => undefined,
    (failure: Error) => failure,
  );
  client.close();
  server.close();
  return error!;
}
const conflict = await apiError(409);
const missing = await apiError(404);

/** Keeps one lease as an API server does: a write has to name the version that it replaces. */
function createServer() {
  let lease: LeaseObject | undefined;
  let version = 100;
  const listeners = new Set<(news: LeaseNews) => void>();
  const down = new Set<string>();
  const tell = () => {
    for (const each of listeners) each({ lease, version: String(version) });
  };
  const clientOf = (who: string) =>
    ({
      async request(method: string, _path: string, options: { body?: LeaseObject } = {}) {
        await Promise.resolve();
        if (down.has(who)) throw new Error('connection refused');
        if (method === 'GET') {
          if (lease === undefined) throw missing;
          return lease;
        }
        const body = options.body!;
        if (method === 'POST' ? lease !== undefined : body.metadata.resourceVersion !== lease?.metadata.resourceVersion)
          throw lease === undefined ? missing : conflict;
        lease = { ...body, metadata: { ...body.metadata, resourceVersion: String(++version) } };
        tell();
        return lease;
      },
    }) as unknown as KubeClient;
  const feed: LeaseFeed = {
    follow(_name, listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop() {},
  };
  return {
    clientOf,
    feed,
    down,
    lease: () => lease,
    remove() {
      lease = undefined;
      version++;
      tell();
    },
  };
}

type Server = ReturnType<typeof createServer>;

function want(server: Server, who: string, clock: Clock, feed: boolean, states: LeaseState[] = []): Lease {
  return wantLease({
    client: server.clientOf(who),
    namespace: 'kube-system',
    name: 'job',
    holder: who,
    terms,
    clock,
    feed: feed ? server.feed : undefined,
    onChange: (state) => states.push(state),
  });
}

for (const feed of [false, true]) {
  const how = feed ? 'told of changes' : 'reading';

  test(`two at once (${how}): one holds the lease and keeps it`, async () => {
    const server = createServer();
    const clock = createFakeClock();
    const [a, b] = [want(server, 'a', clock, feed), want(server, 'b', clock, feed)];
    await clock.advance(100);
    assert.deepEqual([a.held(), b.held()].sort(), [false, true]);
    const first = server.lease()?.spec?.holderIdentity;
    await clock.advance(60_000);
    assert.equal(server.lease()?.spec?.holderIdentity, first);
    assert.equal(server.lease()?.spec?.leaseTransitions, 1);
    assert.deepEqual([a.state().holder, b.state().holder], [first, first]);
  });

  test(`a holder that is cut off (${how}) loses the lease before the other takes it, within two durations`, async () => {
    const server = createServer();
    const clock = createFakeClock();
    const states: LeaseState[] = [];
    const a = want(server, 'a', clock, feed, states);
    await clock.advance(50);
    const b = want(server, 'b', clock, feed);
    await clock.advance(500);
    assert.equal(a.held(), true);
    server.down.add('a');
    for (let waitedMs = 0; !b.held(); waitedMs += 10) {
      assert.ok(waitedMs < 2000, 'nobody took over');
      await clock.advance(10);
      assert.ok(!(a.held() && b.held()), 'both hold it');
    }
    assert.equal(states.at(-1)?.held, false);
    assert.match(states.at(-1)?.error ?? '', /refused/);
    server.down.delete('a');
    await clock.advance(5000);
    assert.deepEqual([a.held(), b.held()], [false, true]);
    assert.equal(a.state().holder, 'b');
  });
}

test('a lease that is given back is taken at once', async () => {
  const server = createServer();
  const clock = createFakeClock();
  const a = want(server, 'a', clock, true);
  await clock.advance(10);
  const b = want(server, 'b', clock, true);
  await clock.advance(10);
  await a.release();
  assert.equal(a.held(), false);
  await clock.advance(1);
  assert.equal(b.held(), true);
});

test('clocks that differ by years do not matter, nor do the times in the lease', async () => {
  const server = createServer();
  const clock = createFakeClock();
  const ahead: Clock = { now: () => clock.now() + 1e11, after: clock.after };
  const a = want(server, 'a', clock, false);
  await clock.advance(10);
  const b = want(server, 'b', ahead, false);
  await clock.advance(20_000);
  assert.deepEqual([a.held(), b.held()], [true, false]);
});

test('a holder that stood still does not believe that it holds the lease', async () => {
  const server = createServer();
  const clock = createFakeClock();
  let frozen = false;
  const later: (() => void)[] = [];
  const own: Clock = {
    now: clock.now,
    after: (delayMs, fn) => clock.after(delayMs, () => (frozen ? later.push(fn) : fn())),
  };
  const a = want(server, 'a', own, true);
  await clock.advance(10);
  const b = want(server, 'b', clock, false);
  frozen = true;
  await clock.advance(2500);
  assert.deepEqual([a.held(), b.held()], [false, true]);
  frozen = false;
  for (const each of later) each();
  await clock.advance(2500);
  assert.deepEqual([a.held(), b.held()], [false, true]);
});

test('a lease that is deleted is lost, and made anew', async () => {
  const server = createServer();
  const clock = createFakeClock();
  const states: LeaseState[] = [];
  const a = want(server, 'a', clock, true, states);
  await clock.advance(10);
  server.remove();
  assert.equal(a.held(), false);
  await clock.advance(10);
  assert.equal(a.held(), true);
  const held = states.map((state) => state.held);
  assert.deepEqual(
    held.filter((each, i) => each !== (held[i - 1] ?? false)),
    [true, false, true],
  );
});

test('never two at once, whoever is cut off, comes back, ends or deletes the lease', async () => {
  const event = fc.record({
    who: fc.constantFrom('a', 'b', 'c'),
    what: fc.constantFrom('cut', 'back', 'restart', 'end'),
    afterMs: fc.integer({ min: 1, max: 1500 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 25 }), fc.boolean(), async (events, feed) => {
      const server = createServer();
      const clock = createFakeClock();
      const leases = new Map(['a', 'b', 'c'].map((who) => [who, want(server, who, clock, feed)]));
      for (const { who, what, afterMs } of events) {
        if (what === 'cut') server.down.add(who);
        else if (what === 'back') server.down.delete(who);
        else {
          if (what === 'end') await leases.get(who)!.release();
          else leases.set(who, want(server, who, clock, feed));
          if (what === 'end') leases.set(who, want(server, who, clock, feed));
        }
        for (let waitedMs = 0; waitedMs < afterMs; waitedMs += 50) {
          await clock.advance(50);
          const holders = [...leases.values()].filter((lease) => lease.held());
          const names = new Set(holders.map((lease) => lease.state().holder));
          assert.ok(names.size <= 1, 'two hold it');
        }
      }
      server.down.clear();
      await clock.advance(5000);
      assert.ok(
        [...leases.values()].some((lease) => lease.held()),
        'nobody holds it in the end',
      );
    }),
    { numRuns: 60 },
  );
});
