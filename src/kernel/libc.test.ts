import assert from 'node:assert/strict';
import { openSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { errnoName, isErrno, KernelError } from './kernel-error.ts';
import { closeFd, dupFd, mapShared, PROT_READ, pageSize } from './libc.ts';

test('mapShared shows a file and is empty after close', () => {
  const fd = openSync('/bin/sh', 'r');
  const mapping = mapShared(fd, pageSize(), 0, PROT_READ);
  const bytes = new Uint8Array(mapping.buffer);
  assert.deepEqual([...bytes.subarray(1, 4)], [...Buffer.from('ELF')]);
  mapping.close();
  mapping.close();
  assert.equal(bytes.length, 0);
  closeFd(fd);
});

test('mapShared leaves no mapping behind', () => {
  const fd = openSync('/bin/sh', 'r');
  const count = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;
  mapShared(fd, pageSize(), 0, PROT_READ).close();
  const before = count();
  for (let i = 0; i < 500; i++) mapShared(fd, pageSize(), 0, PROT_READ).close();
  assert.ok(count() < before + 100);
  closeFd(fd);
});

test('closeFd says EBADF for what is not open; dupFd gives a second descriptor', () => {
  const fd = openSync('/bin/sh', 'r');
  const before = readdirSync('/proc/self/fd').length;
  const copy = dupFd(fd);
  assert.notEqual(copy, fd);
  closeFd(copy);
  assert.equal(readdirSync('/proc/self/fd').length, before);
  closeFd(fd);
  assert.throws(
    () => closeFd(99_999),
    (error) => isErrno(error, 'EBADF'),
  );
});

test('KernelError reads as a sentence', () => {
  const error = new KernelError('bpf(MAP_CREATE)', 1, 'ct4');
  assert.equal(error.message, 'bpf(MAP_CREATE): EPERM (operation not permitted): ct4');
  assert.equal(errnoName(524), 'ENOTSUPP');
  assert.equal(errnoName(9999), 'errno 9999');
});
