import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bytesText,
  durationText,
  endText,
  labelsText,
  percentText,
  protocolNumber,
  protocolText,
} from './display-units.ts';

test('bytesText() keeps three digits', () => {
  assert.deepEqual([0, 1023, 1024, 12_700, 150 * 1024, 5 * 1024 ** 3].map(bytesText), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '12.4 KiB',
    '150 KiB',
    '5.0 GiB',
  ]);
});

test('durationText() has two units at most', () => {
  assert.deepEqual([0.25, 42.4, 310, 10_920, 360_000].map(durationText), ['0.3s', '42s', '5m10s', '3h02m', '4d4h']);
});

test('percentText() never shows a little as nothing', () => {
  assert.deepEqual(
    [percentText(0, 10), percentText(1, 100_000), percentText(1, 40), percentText(9, 9), percentText(1, 0)],
    ['0.0 %', '<0.1 %', '2.5 %', '100 %', '-'],
  );
});

test('protocolNumber() and protocolText() are inverse, and refuse what is no protocol', () => {
  for (const number of [1, 6, 17, 58, 132, 47]) assert.equal(protocolNumber(protocolText(number)), number);
  assert.equal(protocolNumber('tcp'), 6);
  for (const bad of ['', '256', '-1', 'tcpx', '1e1']) assert.equal(protocolNumber(bad), undefined);
});

test('endText() puts IPv6 addresses into brackets and leaves out ports where there are none', () => {
  assert.equal(endText('fd00::1', 80, 6), '[fd00::1]:80');
  assert.equal(endText('10.0.0.1', 80, 17), '10.0.0.1:80');
  assert.equal(endText('fd00::1', 1234, 58), 'fd00::1');
});

test('labelsText() leaves out what every pod has, unless there is nothing else', () => {
  assert.equal(labelsText(['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop']), 'app=web');
  assert.equal(labelsText(['k8s:io.kubernetes.pod.namespace=shop']), 'io.kubernetes.pod.namespace=shop');
  assert.equal(labelsText(['reserved:world']), 'reserved:world');
});
