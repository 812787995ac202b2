import assert from 'node:assert/strict';
import { test } from 'node:test';
import { derive, deriveEach } from './derive.ts';
import { createTable } from './table.ts';

const numbers = (name: string) => createTable<{ id: string; n: number }>({ name, key: (row) => row.id });

test('deriveEach() keeps an image, row by row, in a microtask after the change', async () => {
  const from = numbers('from');
  const to = numbers('to');
  deriveEach({ from, to, map: (row) => (row.n < 0 ? undefined : { id: `even-${row.n % 2}-${row.id}`, n: row.n * 2 }) });
  from.upsert([
    { id: 'a', n: 1 },
    { id: 'b', n: -1 },
  ]);
  await Promise.resolve();
  assert.equal(to.size, 0, 'waits until the source is initialized');
  from.markInitialized();
  await Promise.resolve();
  assert.deepEqual([...to.rows()], [{ id: 'even-1-a', n: 2 }]);
  assert.ok(to.initialized);
  from.upsert({ id: 'a', n: 4 });
  from.upsert({ id: 'b', n: 2 });
  await Promise.resolve();
  assert.deepEqual(
    [...to.rows()],
    [
      { id: 'even-0-a', n: 8 },
      { id: 'even-0-b', n: 4 },
    ],
  );
  from.delete('a');
  await Promise.resolve();
  assert.deepEqual(
    [...to.rows()].map((row) => row.id),
    ['even-0-b'],
  );
});

test('derive() costs what changed: compute sees the change and not the table', () => {
  const from = numbers('from');
  const to = numbers('to');
  const sizes: number[] = [];
  const derivation = derive({
    from: [from],
    to,
    compute([set]) {
      sizes.push(set.changes.length);
      return { upsert: set.changes.flatMap((change) => change.after ?? []) };
    },
  });
  from.upsert(Array.from({ length: 1000 }, (_, n) => ({ id: `${n}`, n })));
  from.markInitialized();
  derivation.flush();
  from.upsert({ id: '7', n: 8 });
  derivation.flush();
  derivation.flush();
  assert.deepEqual(sizes, [1000, 1]);
});

test('flush() brings derivations of derivations up to date, from the source on', () => {
  const a = numbers('a');
  const b = numbers('b');
  const c = numbers('c');
  deriveEach({ from: a, to: b, map: (row) => ({ ...row, n: row.n + 1 }) });
  const last = deriveEach({ from: b, to: c, map: (row) => ({ ...row, n: row.n * 10 }) });
  a.upsert({ id: 'x', n: 1 });
  a.markInitialized();
  last.flush();
  assert.deepEqual([...c.rows()], [{ id: 'x', n: 20 }]);
});

test('derive() from several tables runs once for changes of both, and waits for both', async () => {
  const a = numbers('a');
  const b = numbers('b');
  const sum = numbers('sum');
  const derivation = derive({
    from: [a, b],
    to: sum,
    compute: ([left, right]) => ({
      replaceAll: [{ id: 'changes', n: left.changes.length * 10 + right.changes.length }],
    }),
  });
  a.upsert({ id: 'x', n: 1 });
  a.markInitialized();
  await Promise.resolve();
  assert.equal(derivation.runs, 0);
  b.markInitialized();
  b.upsert([
    { id: 'x', n: 1 },
    { id: 'y', n: 1 },
  ]);
  await Promise.resolve();
  await Promise.resolve();
  assert.equal(derivation.runs, 1);
  assert.equal(sum.get('changes')?.n, 12);
  derivation.stop();
  a.upsert({ id: 'z', n: 1 });
  await Promise.resolve();
  assert.equal(derivation.runs, 1);
});

test('deriveEach() forgets what it remembers when its reader fell behind', () => {
  const from = createTable<{ id: string; n: number }>({ name: 'from', key: (row) => row.id, historyLimit: 2 });
  const to = numbers('to');
  const derivation = deriveEach({ from, to, map: (row) => row });
  from.upsert([
    { id: 'a', n: 1 },
    { id: 'b', n: 1 },
  ]);
  from.markInitialized();
  derivation.flush();
  from.delete('a');
  for (let n = 0; n < 10; n++) from.upsert({ id: 'b', n: n + 10 });
  derivation.flush();
  assert.deepEqual([...to.rows()], [{ id: 'b', n: 19 }]);
});
