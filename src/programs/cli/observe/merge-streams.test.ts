import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createReorder, mergeByTime } from './merge-streams.ts';

async function* stream(...times: number[]) {
  for (const time of times) yield { timeNs: BigInt(time) };
}

test('mergeByTime() gives all streams in order of time', async () => {
  const got: number[] = [];
  for await (const item of mergeByTime([stream(1, 4, 9), stream(), stream(2, 3, 10), stream(5)]))
    got.push(Number(item.timeNs));
  assert.deepEqual(got, [1, 2, 3, 4, 5, 9, 10]);
});

test('mergeByTime() ends all streams when its reader has enough, and when one of them fails', async () => {
  let open = 0;
  async function* held(fails: boolean) {
    open++;
    try {
      yield { timeNs: 1n };
      if (fails) throw new Error('it failed');
      yield { timeNs: 2n };
    } finally {
      open--;
    }
  }
  for await (const _ of mergeByTime([held(false), held(false)])) break;
  assert.equal(open, 0);
  const all = async () => {
    for await (const _ of mergeByTime([held(true), held(false)]));
  };
  await assert.rejects(all, /it failed/);
  assert.equal(open, 0);
});

test('createReorder() puts what comes together in order, and keeps nothing back for ever', async () => {
  const got: number[] = [];
  await new Promise<void>((resolve) => {
    const reorder = createReorder<{ timeNs: bigint }>((items) => {
      got.push(...items.map((each) => Number(each.timeNs)));
      if (got.length === 3) resolve();
    }, 20);
    for (const time of [3, 1, 2]) reorder.add({ timeNs: BigInt(time) });
  });
  assert.deepEqual(got, [1, 2, 3]);
});
