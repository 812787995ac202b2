import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oldLeases } from './announcement-leases.ts';

test('oldLeases() leaves those that were renewed within the hour, and those that do not say when', () => {
  const nowMs = Date.parse('2026-01-01T12:00:00Z');
  const lease = (name: string, renewTime?: string) => ({ metadata: { name }, spec: { renewTime } });
  const leases = [
    lease('used', '2026-01-01T11:59:59.000000Z'),
    lease('given-back', '2026-01-01T11:10:00.000000Z'),
    lease('left', '2026-01-01T10:00:00.000000Z'),
    lease('odd'),
  ];
  assert.deepEqual(
    oldLeases(leases, nowMs).map((each) => each.metadata.name),
    ['left'],
  );
});
