import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { parseCgroup2Mount } from './cgroups.ts';
import { runProbe } from './doctor/probe.ts';
import { canRun, probeKernel } from './doctor.ts';
import { KernelError } from './kernel-error.ts';

test('probeKernel answers every question once and leaves nothing open', () => {
  probeKernel(); // the first run opens what the process keeps
  const before = readdirSync('/proc/self/fd').length;
  const rows = probeKernel();
  assert.equal(readdirSync('/proc/self/fd').length, before);
  assert.ok(rows.length > 25);
  assert.equal(new Set(rows.map((row) => row.feature)).size, rows.length);
  for (const row of rows) {
    assert.ok(row.feature && row.neededFor);
    if (row.state === 'no' && !row.required) assert.ok(row.insteadUsed, row.feature);
    if (row.state !== 'yes') assert.ok(row.detail, row.feature);
  }
});

test('canRun is false only when something required is missing', () => {
  const row = { feature: 'x', neededFor: 'y', insteadUsed: '', detail: '' };
  assert.equal(
    canRun([
      { ...row, required: true, state: 'unknown' },
      { ...row, required: false, state: 'no' },
    ]),
    true,
  );
  assert.equal(canRun([{ ...row, required: true, state: 'no' }]), false);
});

test('runProbe turns a failure into an answer', () => {
  const probe = (attempt: () => string) => runProbe({ feature: 'x', neededFor: 'y', instead: 'z', attempt });
  assert.deepEqual(
    probe(() => {
      throw new KernelError('bpf', 22, 'unknown func');
    }),
    {
      feature: 'x',
      neededFor: 'y',
      required: false,
      state: 'no',
      insteadUsed: 'z',
      detail: 'bpf: EINVAL (invalid argument): unknown func',
    },
  );
  assert.equal(probe(() => 'found').detail, 'found');
});

test('parseCgroup2Mount finds the unified hierarchy beside version 1', () => {
  const text = [
    '30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw',
    '31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw',
    '32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu',
  ].join('\n');
  assert.equal(parseCgroup2Mount(text), '/sys/fs/cgroup/unified');
  assert.equal(parseCgroup2Mount(''), undefined);
});
