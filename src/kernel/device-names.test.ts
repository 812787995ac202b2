import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDeviceNames } from './device-names.ts';
import type { Netlink } from './netlink.ts';

test('createDeviceNames() asks once for each device, again after a while, and keeps the names of those that went', () => {
  const devices = new Map([[2, 'eth0']]);
  const now = { ms: 0 };
  let asked = 0;
  const nameOf = createDeviceNames(
    {} as Netlink,
    () => now.ms,
    (_, ifindex) => {
      asked++;
      const name = devices.get(ifindex);
      return name === undefined ? undefined : { name };
    },
  );
  assert.deepEqual([nameOf(2), nameOf(2), nameOf(3), nameOf(3), asked], ['eth0', 'eth0', '', '', 2]);
  devices.set(2, 'lan0').set(3, 'weir3');
  now.ms = 1_000;
  assert.deepEqual([nameOf(2), nameOf(3), asked], ['eth0', 'weir3', 3]);
  now.ms = 60_000;
  assert.deepEqual([nameOf(2), asked], ['lan0', 4]);
  devices.delete(2);
  now.ms = 120_000;
  assert.deepEqual([nameOf(2), nameOf(2), asked], ['lan0', 'lan0', 5]);
});

test('createDeviceNames() takes a kernel that does not answer as a device that is gone, and asks again soon', () => {
  const now = { ms: 0 };
  let answers = true;
  const nameOf = createDeviceNames(
    {} as Netlink,
    () => now.ms,
    () => {
      if (!answers) throw new Error('ENOBUFS');
      return { name: 'eth0' };
    },
  );
  assert.equal(nameOf(2), 'eth0');
  answers = false;
  now.ms = 60_000;
  assert.deepEqual([nameOf(2), nameOf(3)], ['eth0', '']);
  answers = true;
  now.ms = 61_000;
  assert.equal(nameOf(3), 'eth0');
});
