import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createFakeClock, type FakeClock } from '../../core/clock.ts';
import { type AnnouncementPort, type Announcer, createAnnouncer } from './announcer.ts';
import type { Claim } from './claims.ts';

/** Leases as the API server would have them, for several nodes. */
function leaseServer() {
  const holders = new Map<string, string>();
  const watchers = new Map<string, Set<() => void>>();
  const cut = new Set<string>();
  const changed = (name: string) => {
    for (const watcher of [...(watchers.get(name) ?? [])]) watcher();
  };
  return {
    holders,
    /** This node cannot reach the server any more. */
    cut: (node: string) => {
      cut.add(node);
      for (const name of holders.keys()) changed(name);
    },
    take(name: string, node: string) {
      holders.set(name, node);
      changed(name);
    },
    for: (node: string) => (name: string, onChange: () => void) => {
      let seen: string | undefined;
      let closed = false;
      const look = () => {
        if (closed) return;
        if (!cut.has(node)) {
          if (!holders.has(name)) holders.set(name, node);
          seen = holders.get(name);
        }
        onChange();
      };
      watchers.set(name, (watchers.get(name) ?? new Set()).add(look));
      queueMicrotask(look);
      return {
        state: () => ({
          held: !cut.has(node) && seen === node,
          holder: seen,
          error: cut.has(node) ? 'no answer' : undefined,
        }),
        async release() {
          closed = true;
          watchers.get(name)?.delete(look);
          if (holders.get(name) !== node) return;
          holders.delete(name);
          changed(name);
        },
      };
    },
  };
}

function fakePort(clock: FakeClock): AnnouncementPort & { told: string[]; answers(): string[]; lapseAll(): void } {
  const until = new Map<string, { address: string; ifindex: number; untilMs: number }>();
  const told: string[] = [];
  return {
    told,
    answers: () => [...until.values()].filter((each) => each.untilMs > clock.now()).map((each) => each.address),
    lapseAll: () => until.clear(),
    list: () => [...until.values()],
    put: (address, { ifindex }, lastsMs) =>
      void until.set(`${ifindex} ${address}`, { address, ifindex, untilMs: clock.now() + lastsMs }),
    remove: (address, ifindex) => void until.delete(`${ifindex} ${address}`),
    tell: (address) => void told.push(address),
  };
}

const claim = (address: string, lease = 'any-1', yields = false): Claim => ({
  address,
  lease,
  devices: [2],
  yields,
  services: ['shop/web'],
});

describe('createAnnouncer()', () => {
  function scene(nodes = ['a', 'b']) {
    const clock = createFakeClock();
    const server = leaseServer();
    const made = new Map<string, Announcer & { port: ReturnType<typeof fakePort> }>();
    const start = (node: string, port = fakePort(clock)) => {
      const announcer = createAnnouncer({
        node,
        nodes: () => nodes,
        devices: () => [{ ifindex: 2, mac: '02:00:00:00:00:01' }],
        port,
        wantLease: server.for(node),
        clock,
        onError: (message) => assert.fail(message),
        onChange: () => {},
      });
      const both = Object.assign(announcer, { port });
      made.set(node, both);
      return both;
    };
    return { clock, server, start };
  }

  test('one node answers and tells the network, several times; the other keeps silent', async () => {
    const { clock, start } = scene();
    const [a, b] = [start('a'), start('b')];
    for (const each of [a, b]) each.update([claim('10.0.0.9')]);
    await clock.advance(20_000);
    const answering = [a, b].filter((each) => each.port.answers().length > 0);
    assert.equal(answering.length, 1);
    assert.equal(answering[0]!.port.told.length, 5);
    assert.equal([a, b].find((each) => each !== answering[0])!.port.told.length, 0);
    assert.equal(answering[0]!.status()[0]!.here, true);
  });

  test('goes on while the API server is away, and ends when another has the lease', async () => {
    const { clock, server, start } = scene(['a']);
    const a = start('a');
    a.update([claim('10.0.0.9')]);
    await clock.advance(1_000);
    server.cut('a');
    await clock.advance(60_000);
    assert.deepEqual(a.port.answers(), ['10.0.0.9']);
    const b = start('b');
    b.update([claim('10.0.0.9')]);
    await clock.advance(1_000);
    assert.deepEqual(b.port.answers(), [], 'the lease is not free');
    const c = scene(['c']);
    const one = c.start('c');
    one.update([claim('10.0.0.9')]);
    await c.clock.advance(1_000);
    c.server.take('any-1', 'd');
    await c.clock.advance(10);
    assert.deepEqual(one.port.answers(), []);
  });

  test('what the kernel answers lapses when nobody renews it', async () => {
    const { clock, start } = scene(['a']);
    const a = start('a');
    a.update([claim('10.0.0.9')]);
    await clock.advance(9_000);
    assert.deepEqual(a.port.answers(), ['10.0.0.9']);
    const left = fakePort(clock);
    left.put('10.0.0.9', { ifindex: 2, mac: '' }, 10_000);
    await clock.advance(10_001);
    assert.deepEqual(left.answers(), []);
  });

  test('a new run lets what an earlier one announced go on until it knows who has the lease', async () => {
    const { clock, server, start } = scene(['a', 'b']);
    server.take('any-1', 'b');
    const port = fakePort(clock);
    port.put('10.0.0.9', { ifindex: 2, mac: '' }, 10_000);
    port.put('10.0.0.8', { ifindex: 2, mac: '' }, 10_000);
    const a = start('a', port);
    assert.deepEqual(port.answers(), ['10.0.0.9', '10.0.0.8']);
    a.update([claim('10.0.0.9')]);
    assert.deepEqual(port.answers(), ['10.0.0.9'], 'what nobody claims goes at once');
    await clock.advance(1_000);
    assert.deepEqual(port.answers(), [], 'b has it');
  });

  test('what a node yields another takes at once; both answer until the first knows', async () => {
    const { clock, start } = scene(['a', 'b']);
    const ours = claim('10.0.0.9', 'local-1');
    const [a, b] = [start('a'), start('b')];
    a.update([ours]);
    await clock.advance(1_000);
    b.update([ours]);
    await clock.advance(1_000);
    assert.deepEqual([a.port.answers(), b.port.answers()], [['10.0.0.9'], []]);
    a.update([{ ...ours, yields: true }]);
    await clock.advance(10);
    assert.deepEqual([a.port.answers(), b.port.answers()], [['10.0.0.9'], ['10.0.0.9']]);
    assert.ok(b.port.told.length > 0, 'the network knows where the address is now');
    await clock.advance(2_000);
    assert.deepEqual([a.port.answers(), b.port.answers()], [[], ['10.0.0.9']]);
    a.update([ours]);
    await clock.advance(5_000);
    assert.deepEqual([a.port.answers(), b.port.answers()], [[], ['10.0.0.9']], 'it does not move back');
  });

  test('what a node yields and nobody takes it keeps, without a gap', async () => {
    const { clock, start, server } = scene(['a', 'b']);
    const ours = claim('10.0.0.9', 'local-1');
    const a = start('a');
    a.update([ours]);
    await clock.advance(1_000);
    a.update([{ ...ours, yields: true }]);
    for (let i = 0; i < 300; i++) {
      await clock.advance(10);
      assert.deepEqual(a.port.answers(), ['10.0.0.9'], `${i * 10} ms`);
    }
    await clock.advance(5_000);
    assert.equal(server.holders.get('local-1'), 'a');
    assert.equal(a.port.told.length, 5, 'it never moved');
  });

  test('a node that yields leaves a free lease to others', async () => {
    for (const others of [['b'], []]) {
      const { clock, start } = scene(['a', 'b']);
      const ours = claim('10.0.0.9', 'local-1');
      const a = start('a');
      a.update([{ ...ours, yields: true }]);
      await clock.advance(500);
      const rest = others.map((name) => start(name));
      for (const each of rest) each.update([ours]);
      await clock.advance(5_000);
      assert.deepEqual(a.port.answers(), rest.length > 0 ? [] : ['10.0.0.9']);
      for (const each of rest) assert.deepEqual(each.port.answers(), ['10.0.0.9']);
    }
  });

  test('stop() hands over and answers a moment longer; an address that goes is withdrawn', async () => {
    const { clock, start } = scene(['a', 'b']);
    const a = start('a');
    a.update([claim('10.0.0.9'), claim('10.0.0.7', 'any-2')]);
    await clock.advance(1_000);
    const b = start('b');
    b.update([claim('10.0.0.9'), claim('10.0.0.7', 'any-2')]);
    await clock.advance(1_000);
    a.update([claim('10.0.0.9')]);
    await clock.advance(10);
    assert.deepEqual([a.port.answers(), b.port.answers()], [['10.0.0.9'], ['10.0.0.7']]);
    await a.stop();
    await clock.advance(10);
    assert.deepEqual([a.port.answers(), b.port.answers().sort()], [['10.0.0.9'], ['10.0.0.7', '10.0.0.9']]);
    await clock.advance(1_000);
    assert.deepEqual(a.port.answers(), []);
  });
});
