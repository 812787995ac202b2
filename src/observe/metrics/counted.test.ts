import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCounted } from './counted.ts';

test('createCounted() asks for labels only while there is room for a row', () => {
  const counted = createCounted('flows', 'Flows.', ['port'], 1);
  const made: number[] = [];
  [80, 81, 80, 81].forEach((port, seq) => {
    if (counted.add(port, seq)) return;
    made.push(port);
    counted.begin(port, seq, { port: String(port) });
  });
  assert.deepEqual([made, counted.size, counted.refused], [[80], 1, 2]);
  assert.deepEqual([...counted.cells()], [{ value: 2, lastSeq: 2, labels: { port: '80' } }]);
});
