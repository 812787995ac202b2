import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Change, type ChangeSet, createTable, type Key, type ReadTable } from './table.ts';

interface Pod {
  readonly name: string;
  readonly node: string;
  readonly ips?: readonly string[];
}

const pods = (historyLimit?: number) =>
  createTable<Pod, 'node' | 'ip'>({
    name: 'pods',
    key: (row) => row.name,
    indexes: { node: (row) => row.node, ip: (row) => row.ips },
    ...(historyLimit !== undefined && { historyLimit }),
  });

const short = (set: ChangeSet<Pod>) =>
  set.changes.map(({ key, before, after }) => `${key} ${before?.node ?? '-'}>${after?.node ?? '-'}`);

test('upsert() of an equal row is no change', () => {
  const table = pods();
  table.upsert({ name: 'a', node: '1', ips: ['x'] });
  table.upsert({ name: 'a', node: '1', ips: ['x'] });
  table.upsert([{ name: 'a', node: '1', ips: ['x'] }]);
  assert.equal(table.revision, 1);
});

test('by() finds rows by index, also after they moved, with several values each', () => {
  const table = pods();
  table.upsert([
    { name: 'a', node: '1', ips: ['x', 'y'] },
    { name: 'b', node: '1', ips: ['y'] },
  ]);
  table.upsert({ name: 'a', node: '2', ips: ['z'] });
  assert.deepEqual(
    table.by('node', '1').map((row) => row.name),
    ['b'],
  );
  assert.deepEqual(
    table.by('ip', 'y').map((row) => row.name),
    ['b'],
  );
  assert.deepEqual(table.by('ip', 'x'), []);
  assert.throws(() => table.by('color' as 'ip', 'x'), /has no index color/);
});

test('replaceAll() writes only the differences', () => {
  const table = pods();
  table.upsert([
    { name: 'a', node: '1' },
    { name: 'b', node: '1' },
  ]);
  table.replaceAll([
    { name: 'b', node: '1' },
    { name: 'c', node: '1' },
  ]);
  assert.deepEqual(short(table.changesSince(1)), ['c ->1', 'a 1>-']);
});

test('batch() is one revision and one call, even when it throws', () => {
  const table = pods();
  const calls: string[][] = [];
  table.subscribe((set) => calls.push(short(set)));
  assert.throws(() =>
    table.batch(() => {
      table.upsert({ name: 'a', node: '1' });
      table.upsert({ name: 'a', node: '2' });
      table.upsert({ name: 'b', node: '1' });
      table.delete('b');
      throw new Error('stop');
    }),
  );
  assert.deepEqual(calls, [['a ->2']]);
  assert.equal(table.revision, 1);
});

test('changesSince() coalesces what happened to a key', () => {
  const table = pods();
  table.upsert({ name: 'a', node: '1' });
  const seen = table.revision;
  table.upsert({ name: 'a', node: '2' });
  table.upsert({ name: 'a', node: '3' });
  table.upsert({ name: 'b', node: '1' });
  table.delete('b');
  assert.deepEqual(short(table.changesSince(seen)), ['a 1>3']);
  table.upsert({ name: 'a', node: '1' });
  assert.deepEqual(short(table.changesSince(seen)), []);
});

test('changesSince() tells a reader that fell behind to read everything again', () => {
  const table = pods(4);
  table.upsert({ name: 'gone', node: '1' });
  const seen = table.revision;
  table.delete('gone');
  for (let i = 0; i < 20; i++) table.upsert({ name: 'a', node: `${i}` });
  const set = table.changesSince(seen);
  assert.equal(set.resync, true);
  assert.deepEqual(short(set), ['a ->19']);
  assert.equal(table.changesSince(table.revision - 1).resync, false);
});

test('listeners that write are told after everybody has heard the first batch', () => {
  const table = pods();
  const heard: string[] = [];
  table.subscribe((set) => {
    heard.push(`first ${short(set)}`);
    if (!table.has('b')) table.upsert({ name: 'b', node: '1' });
  });
  table.subscribe((set) => void heard.push(`second ${short(set)}`));
  table.upsert({ name: 'a', node: '1' });
  assert.deepEqual(heard, ['first a ->1', 'second a ->1', 'first b ->1', 'second b ->1']);
});

test('a listener that throws does not keep others from hearing', () => {
  const table = pods();
  let heard = 0;
  table.subscribe(() => {
    throw new Error('bug');
  });
  table.subscribe(() => heard++);
  assert.throws(() => table.upsert({ name: 'a', node: '1' }), /bug/);
  assert.equal(heard, 1);
  assert.ok(table.has('a'));
});

test('changes() yields what there is, then batches, until aborted', async () => {
  const table = pods();
  table.upsert({ name: 'a', node: '1' });
  const stop = new AbortController();
  const seen: string[][] = [];
  const reading = (async () => {
    for await (const set of table.changes({ signal: stop.signal })) {
      seen.push(short(set));
      if (seen.length === 1) {
        table.upsert({ name: 'b', node: '1' });
        table.upsert({ name: 'c', node: '1' });
      } else stop.abort();
    }
  })();
  await reading;
  assert.deepEqual(seen, [['a ->1'], ['b ->1', 'c ->1']]);
});

test('changes() wakes up when aborted while it waits', async () => {
  const stop = new AbortController();
  const first = pods().changes({ signal: stop.signal }).next();
  stop.abort();
  assert.equal((await first).done, true);
});

test('whenInitialized() resolves when the source says so', async () => {
  const table = pods();
  const done = table.whenInitialized();
  table.markInitialized();
  await done;
  await table.whenInitialized();
});

test('a reader that applies change sets at any pace ends with the rows of the table', () => {
  const step = fc.oneof(
    fc
      .record({ name: fc.constantFrom('a', 'b', 'c', 'd'), node: fc.constantFrom('1', '2') })
      .map((row) => ({ row: { ...row }, drop: undefined, read: false })),
    fc.constantFrom('a', 'b', 'c', 'd').map((drop) => ({ row: undefined, drop, read: false })),
    fc.constant({ row: undefined, drop: undefined, read: true }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(4), (steps, historyLimit) => {
      const table = pods(historyLimit);
      const copy = new Map<Key, Pod>();
      let seen = 0;
      const read = () => {
        seen = applyTo(copy, table, seen);
        assert.deepEqual([...copy.values()].sort(byName), [...table.rows()].sort(byName));
      };
      for (const { row, drop, read: reads } of steps) {
        if (row) table.upsert(row);
        if (drop) table.delete(drop);
        if (reads) read();
      }
      read();
    }),
  );
});

function applyTo(copy: Map<Key, Pod>, table: ReadTable<Pod>, since: number): number {
  const { changes, resync, revision } = table.changesSince(since);
  if (resync) copy.clear();
  for (const { key, before, after } of changes as Change<Pod>[]) {
    assert.deepEqual(copy.get(key), before);
    if (after === undefined) copy.delete(key);
    else copy.set(key, after);
  }
  return revision;
}

function byName(a: Pod, b: Pod): number {
  return a.name < b.name ? -1 : 1;
}
