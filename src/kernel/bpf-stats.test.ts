import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMap } from './bpf-map.ts';
import { programInfo } from './bpf-program.ts';
import { enableRunStats, listMaps, listPrograms, objectMemoryBytes } from './bpf-stats.ts';
import { MapType, ProgType } from './bpf-syscall.ts';
import { closeFd } from './libc.ts';
import { loadInstructions, returnProgram } from './raw-program.ts';
import { testRun } from './test-run.ts';

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'needs root: loads BPF programs' };

test('run counters move while statistics are on', needsRoot, () => {
  const fd = loadInstructions({ type: ProgType.schedCls, instructions: returnProgram(0), name: 'counted' });
  using _stats = enableRunStats();
  const before = programInfo(fd).runCount;
  // Test runs do not count; what can be asserted is that the numbers are read and never fall.
  testRun(fd, new Uint8Array(64), { repeat: 100 });
  assert.ok(programInfo(fd).runCount >= before);
  const listed = listPrograms().find((program) => program.id === programInfo(fd).id)!;
  assert.equal(listed.name, 'counted');
  assert.ok(listed.memoryBytes > 0 && listed.verifiedInsns === 2);
  closeFd(fd);
});

test('listMaps tells what a map takes', needsRoot, () => {
  using map = createMap({ name: 'weighed', type: MapType.array, keySize: 4, valueSize: 8, maxEntries: 1 << 16 });
  const listed = listMaps().find(({ id }) => id === map.id)!;
  assert.ok(listed.memoryBytes >= 8 << 16);
  assert.equal(listed.memoryBytes, objectMemoryBytes(map.fd));
});
