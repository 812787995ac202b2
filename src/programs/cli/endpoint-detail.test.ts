import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EffectiveRow } from '../agent/policy-view.ts';
import { mergeRanges, originText } from './endpoint-detail.ts';

const row = (port: number, prefixBits: number, more: Partial<EffectiveRow> = {}): EffectiveRow => ({
  direction: 'ingress',
  peer: { class: 5, labels: [] },
  protocol: 6,
  port,
  prefixBits,
  allow: true,
  stagedAllow: true,
  cookie: 1,
  rules: [],
  ...more,
});
const ranges = (rows: EffectiveRow[]) => mergeRanges(rows).map((each) => `${each.port}-${each.last}`);

test('mergeRanges() makes one line of the prefixes that a range was cut into', () => {
  // 8000-8010 is 8000/21, 8008/23 and 8010/24 in the kernel.
  assert.deepEqual(ranges([row(8000, 21), row(8008, 23), row(8010, 24)]), ['8000-8010']);
  assert.deepEqual(ranges([row(80, 24), row(82, 24)]), ['80-80', '82-82']);
  assert.deepEqual(ranges([row(0, 8)]), ['0-65535']);
  assert.deepEqual(ranges([row(0, 0, { protocol: 0 })]), ['0-65535']);
});

test('mergeRanges() keeps apart what has another origin, peer, direction or protocol', () => {
  for (const change of [{ cookie: 2 }, { peer: { class: 6 } }, { direction: 'egress' as const }, { protocol: 17 }])
    assert.deepEqual(ranges([row(80, 24), row(81, 24, change)]), ['80-80', '81-81']);
});

test('originText() names rules, isolating policies, or why there are none', () => {
  const rule = { kind: 'NetworkPolicy', namespace: 'shop', name: 'p', direction: 'ingress' as const, ruleIndex: 2 };
  assert.equal(originText(row(80, 24, { rules: [rule] })), 'shop/p rule 2');
  assert.equal(originText(row(0, 0, { allow: false, rules: [{ ...rule, ruleIndex: -1 }] })), 'isolated by shop/p');
  assert.match(originText(row(0, 0, { peer: { class: 0 } })), /no policy isolates/);
  assert.match(originText(row(0, 0, { peer: { class: 1, labels: ['reserved:host'] } })), /node always reaches/);
  assert.match(originText(row(0, 0, { allow: false })), /closed until/);
});
