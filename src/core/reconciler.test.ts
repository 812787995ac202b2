import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createFakeClock } from './clock.ts';
import { createFakeTarget } from './fake-target.ts';
import { createReconciler, type ReconcilerOptions } from './reconciler.ts';
import { createTable } from './table.ts';

interface Route {
  readonly to: string;
  readonly via: string;
}

/** A table of routes, a target that may hold some already, and the reconciler between them; time stands still. */
function setUp(existing: Route[] = [], options: Partial<ReconcilerOptions<Route>> = {}) {
  const table = createTable<Route>({ name: 'routes', key: (row) => row.to });
  const target = createFakeTarget<Route>((row) => row.to, existing);
  const clock = createFakeClock();
  const reconciler = createReconciler({ table, target, clock, random: () => 1, minBackoffMs: 100, ...options });
  return { table, target, clock, reconciler, settle: () => clock.advance(0) };
}

test('a change reaches the target, with its status before and after', async () => {
  const { table, target, reconciler, settle } = setUp();
  table.upsert({ to: 'a', via: '1' });
  assert.equal(reconciler.status('a'), 'pending');
  await reconciler.waitFor(table.revision);
  assert.equal(reconciler.status('a'), 'done');
  assert.deepEqual(target.log, ['update a']);
  table.delete('a');
  await settle();
  assert.deepEqual(target.log, ['update a', 'delete a']);
  assert.equal(reconciler.status('a'), undefined);
});

test('on start nothing is removed until the table is complete; then what is left over goes', async () => {
  const { table, target, reconciler, settle } = setUp([
    { to: 'old', via: '1' },
    { to: 'kept', via: '1' },
  ]);
  table.upsert({ to: 'kept', via: '1' });
  await settle();
  assert.ok(target.held.has('old'));
  assert.equal(reconciler.pruned().done, false);
  table.markInitialized();
  await settle();
  assert.deepEqual([...target.held.keys()], ['kept']);
  assert.equal(reconciler.pruned().done, true);
  assert.equal(target.log.at(-1), 'prune kept');
});

test('writeAgain() brings back what something else took from the target', async () => {
  const { table, target, reconciler, settle } = setUp();
  table.upsert([
    { to: 'a', via: '1' },
    { to: 'b', via: '1' },
  ]);
  await settle();
  target.held.delete('a');
  table.delete('b');
  reconciler.writeAgain();
  await settle();
  assert.deepEqual([...target.held.keys()], ['a']);
});

test('a row that fails is tried again, later each time, while others pass', async () => {
  const { table, target, clock, reconciler, settle } = setUp();
  target.failRow('a', 'no room', 3);
  table.upsert([
    { to: 'a', via: '1' },
    { to: 'b', via: '1' },
  ]);
  await settle();
  assert.deepEqual([...target.held.keys()], ['b']);
  assert.deepEqual(reconciler.statusCounts(), { pending: 0, done: 1, error: 1 });
  const [failing] = reconciler.unfinished();
  assert.deepEqual([failing?.state, failing?.error, failing?.attempts], ['error', 'no room', 1]);
  const times: number[] = [];
  for (let tries = target.log.length; target.held.size < 2; await clock.advance(50)) {
    if (target.log.length > tries) times.push(clock.now());
    tries = target.log.length;
  }
  assert.deepEqual(times, [100, 300]);
  assert.equal(clock.now(), 100 + 200 + 400);
  assert.deepEqual(reconciler.statusCounts(), { pending: 0, done: 2, error: 0 });
});

test('a newer value of a failing row is tried at once', async () => {
  const { table, target, settle } = setUp();
  target.failRow('a', 'no', 1);
  table.upsert({ to: 'a', via: '1' });
  await settle();
  table.upsert({ to: 'a', via: '2' });
  await settle();
  assert.deepEqual(target.held.get('a'), { to: 'a', via: '2' });
});

test('a batch that throws is tried row by row, so that one bad row does not hold up the others', async () => {
  const { table, target, reconciler, settle } = setUp();
  const update = target.update;
  target.update = (rows) => {
    if (rows.some((row) => row.to === 'bad')) throw new Error('EINVAL');
    return update(rows);
  };
  table.upsert([
    { to: 'a', via: '1' },
    { to: 'bad', via: '1' },
    { to: 'b', via: '1' },
  ]);
  await settle();
  assert.deepEqual([...target.held.keys()], ['a', 'b']);
  assert.deepEqual(
    reconciler.unfinished().map((row) => `${row.key}: ${row.error}`),
    ['bad: EINVAL'],
  );
});

test('deletions go first, since they make room', async () => {
  const { table, target, settle } = setUp();
  table.upsert({ to: 'a', via: '1' });
  await settle();
  table.batch(() => {
    table.upsert({ to: 'b', via: '1' });
    table.delete('a');
  });
  await settle();
  assert.deepEqual(target.log, ['update a', 'delete a', 'update b']);
});

test('a prune that fails is tried again and its error shown', async () => {
  const { table, target, clock, reconciler, settle } = setUp([{ to: 'old', via: '1' }]);
  target.throwNext('EBUSY');
  table.markInitialized();
  await settle();
  assert.deepEqual(reconciler.pruned(), { done: false, error: 'EBUSY' });
  await clock.advance(100);
  assert.deepEqual(reconciler.pruned(), { done: true });
  assert.equal(target.held.size, 0);
});

test('waitFor() waits for rows that fail, and gives up when told to', async () => {
  const { table, target, clock, reconciler, settle } = setUp();
  target.failRow('a', 'no', 1);
  table.upsert({ to: 'a', via: '1' });
  const stop = new AbortController();
  const given = reconciler.waitFor(table.revision, stop.signal);
  await settle();
  stop.abort(new Error('too long'));
  await assert.rejects(given, /too long/);
  const waited = reconciler.waitFor(table.revision);
  await clock.advance(100);
  await waited;
});

test('waitFor() waits for the write that carries the change, also when newer ones of its row follow', async () => {
  const table = createTable<Route>({ name: 'routes', key: (row) => row.to });
  const writes: { rows: readonly Route[]; done: () => void }[] = [];
  const update = (rows: readonly Route[]) => new Promise<void>((done) => writes.push({ rows, done }));
  const reconciler = createReconciler({
    table,
    target: { update, delete: () => {}, prune: () => {} },
    clock: createFakeClock(),
  });
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  const reached: number[] = [];
  for (const via of [1, 2, 3]) {
    table.upsert({ to: 'a', via: String(via) });
    void reconciler.waitFor(table.revision).then(() => reached.push(via));
    if (via === 1) await settle(); // The first is under way when the others come.
  }
  await settle();
  assert.deepEqual([writes.length, reached], [1, []]);
  writes[0]!.done();
  await settle();
  assert.deepEqual([writes[1]?.rows[0]?.via, reached], ['3', [1]]);
  writes[1]!.done();
  await settle();
  assert.deepEqual(reached, [1, 2, 3]);
  await reconciler.stop();
});

test('stop() ends the work', async () => {
  const { table, target, reconciler, settle } = setUp();
  await reconciler.stop();
  table.upsert({ to: 'a', via: '1' });
  await settle();
  assert.deepEqual(target.log, []);
});

test('whatever fails on the way, the target ends up holding the table', async () => {
  const step = fc.record({
    to: fc.constantFrom('a', 'b', 'c'),
    via: fc.option(fc.constantFrom('1', '2'), { nil: undefined }),
    fails: fc.nat(2),
    throws: fc.boolean(),
    waitMs: fc.constantFrom(0, 0, 120),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), fc.integer({ min: 1, max: 3 }), async (steps, batchRows) => {
      const { table, target, clock, reconciler } = setUp(
        [
          { to: 'c', via: 'old' },
          { to: 'z', via: 'old' },
        ],
        { batchRows },
      );
      for (const { to, via, fails, throws, waitMs } of steps) {
        target.failRow(to, 'no', fails);
        if (throws) target.throwNext('whole');
        if (via === undefined) table.delete(to);
        else table.upsert({ to, via });
        await clock.advance(waitMs);
      }
      table.markInitialized();
      await clock.advance(1_000_000);
      assert.deepEqual([...target.held].sort(), [...table.rows()].map((row) => [row.to, row]).sort());
      assert.deepEqual(reconciler.unfinished(), []);
      assert.equal(reconciler.statusCounts().done, table.size);
    }),
  );
});
