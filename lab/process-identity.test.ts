import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { identify, isAlive, parseStat, recall, remember, signalProcess, stopRemembered } from './process-identity.ts';
import { waitFor } from './wait.ts';

const folder = mkdtempSync(join(tmpdir(), 'weir-identity-'));
after(() => rmSync(folder, { recursive: true }));

test('parseStat() reads past a name with spaces and brackets', () => {
  const numbers = Array.from({ length: 49 }, (_, index) => String(index + 4)).join(' ');
  assert.deepEqual(parseStat(`42 (a (b) c) S 3 ${numbers}`), {
    state: 'S',
    parentPid: 3,
    threads: 19,
    startTicks: '21',
  });
  assert.equal(parseStat('nonsense'), undefined);
});

test('isAlive() is false for another process with the same pid', () => {
  const me = identify(process.pid);
  assert.equal(isAlive(me), true);
  assert.equal(isAlive({ ...me!, startTicks: '1' }), false);
  assert.equal(isAlive({ ...me!, bootId: 'of another boot' }), false);
  assert.equal(isAlive(undefined), false);
});

test('isAlive() is true as long as a thread of the process runs, also when its first one has ended', async () => {
  // exit (60 on x86-64, 93 on arm64) ends the calling thread only.
  const program = `
import ctypes, platform, threading, time
threading.Thread(target=lambda: time.sleep(600)).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)`;
  const headless = spawn('python3', ['-c', program], { stdio: 'ignore' });
  const file = join(folder, 'headless.json');
  await waitFor(
    'the first thread to end',
    async () => parseStat(readFileSync(`/proc/${headless.pid}/stat`, 'utf8'))?.state === 'Z',
    10_000,
    5,
  );
  const identity = identify(headless.pid!)!;
  assert.equal(isAlive(identity), true);
  remember(file, identity);
  await stopRemembered(file, 0);
  assert.equal(isAlive(identity), false);
});

test('signalProcess() never signals a reused pid', () => {
  assert.equal(signalProcess({ ...identify(process.pid)!, startTicks: '1' }, 'SIGKILL'), false);
});

test('recall() gives what remember() wrote, and nothing for a half-written file', () => {
  const file = join(folder, 'process.json');
  const me = identify(process.pid)!;
  remember(file, me);
  assert.deepEqual(recall(file), me);
  writeFileSync(file, '{"pid": 1, "sta');
  assert.equal(recall(file), undefined);
  writeFileSync(file, '{"pid": 1}');
  assert.equal(recall(file), undefined);
});

test('stopRemembered() ends a process that does not listen, and forgets it', async () => {
  const deaf = spawn('/bin/sh', ['-c', 'trap "" TERM; while :; do sleep 0.01; done'], { stdio: 'ignore' });
  const file = join(folder, 'deaf.json');
  const identity = identify(deaf.pid!)!;
  remember(file, identity);
  await stopRemembered(file, 100);
  assert.equal(isAlive(identity), false);
  assert.equal(recall(file), undefined);
  await stopRemembered(file, 100); // of nothing is nothing
});
