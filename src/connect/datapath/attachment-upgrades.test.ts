import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { createAttachmentUpgrades } from './attachment-upgrades.ts';

function fixture() {
  const log: string[] = [];
  const running: { name: string; wanted: () => boolean; done: () => void; fail: (error: Error) => void }[] = [];
  const upgrades = createAttachmentUpgrades<string>({
    upgrade: (name, wanted) =>
      new Promise<void>((done, fail) => {
        log.push(name);
        running.push({ name, wanted, done, fail });
      }),
    onError: (message) => log.push(message),
    quietMs: 1_000,
    longestMs: 5_000,
  });
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return { log, running, upgrades, settle };
}

test('createAttachmentUpgrades waits for the quiet, then takes one at a time', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.after(() => mock.timers.reset());
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const pass = (ms: number) => {
    nowMs += ms;
    mock.timers.tick(ms);
  };
  const { log, running, upgrades, settle } = fixture();
  upgrades.add('a', 'a');
  pass(900);
  upgrades.add('b', 'b');
  pass(900);
  assert.deepEqual(log, []);
  pass(100);
  assert.deepEqual(log, ['a']);
  pass(5_000);
  assert.deepEqual(log, ['a'], 'b waits for a');
  running[0]!.done();
  await settle();
  pass(0);
  assert.deepEqual(log, ['a', 'b']);
  assert.deepEqual(
    upgrades.waiting().map(([name]) => name),
    ['b'],
  );
});

test('createAttachmentUpgrades does not wait for the quiet for ever', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.after(() => mock.timers.reset());
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const { log, upgrades } = fixture();
  for (let i = 0; i < 12; i++) {
    upgrades.add(`pod-${i}`, `pod-${i}`);
    nowMs += 500;
    mock.timers.tick(500);
  }
  assert.deepEqual(log, ['pod-0']);
});

test('createAttachmentUpgrades gives up what was dropped, and goes on after an error', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.after(() => mock.timers.reset());
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const { log, running, upgrades, settle } = fixture();
  for (const name of ['a', 'b', 'c']) upgrades.add(name, name);
  nowMs = 1_000;
  mock.timers.tick(1_000);
  assert.equal(running[0]!.wanted(), true);
  upgrades.drop('a');
  assert.equal(running[0]!.wanted(), false);
  upgrades.drop('b');
  running[0]!.fail(new Error('no'));
  await settle();
  mock.timers.tick(0);
  assert.deepEqual(log, ['a', 'could not attach a with tcx, clsact stays', 'c']);
});
