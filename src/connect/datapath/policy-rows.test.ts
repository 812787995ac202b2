import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PolicyPeerRow, PolicyPortRow } from '../../core/rows.ts';
import type { KernelMap } from './kernel-map.ts';
import { createPolicyRows, type OwnersShare } from './policy-rows.ts';

/** A map with room for so many rows. */
function fakeMap(room: { rows: number }) {
  const held = new Map<string, Uint8Array>();
  const failing = new Map<string, [Uint8Array, Uint8Array]>();
  const map: KernelMap = {
    name: 'fake',
    put(key, value, row) {
      const text = Buffer.from(key).toString('hex');
      if (!held.has(text) && held.size >= room.rows) {
        failing.set(row, [key, value]);
        return false;
      }
      failing.delete(row);
      held.set(text, value);
      return true;
    },
    replaceTogether() {},
    get: (key) => held.get(Buffer.from(key).toString('hex')),
    remove(key, row) {
      failing.delete(row);
      return held.delete(Buffer.from(key).toString('hex'));
    },
    forget(key) {
      for (const [row, [each]] of failing) if (Buffer.compare(each, key) === 0) failing.delete(row);
    },
    prune() {},
    retry() {
      for (const [row, [key, value]] of [...failing]) map.put(key, value, row);
      return failing.size > 0;
    },
    status: () => ({
      name: 'fake',
      rows: held.size,
      capacity: room.rows,
      failing: [...failing.keys()].map((row) => ({ row, error: 'full', attempts: 1, sinceMs: 0 })),
      adopted: { same: 0, changed: 0, added: 0, pruned: 0 },
    }),
  };
  return { map, held };
}

const port = (ruleset: number, allow: boolean, prefixBits = 0, number = 0): PolicyPortRow => ({
  ruleset,
  protocol: prefixBits === 0 ? 0 : 6,
  port: number,
  prefixBits,
  allow,
  proxyPort: 0,
  cookie: 0,
  stagedAllow: allow,
});
const peer = (number: number, ruleset: number): PolicyPeerRow => ({
  subject: 7,
  direction: 'ingress',
  peer: number,
  ruleset,
});

function setUp(rows: { peers: number; ports: number }, share?: OwnersShare) {
  const room = { peers: { rows: rows.peers }, ports: { rows: rows.ports } };
  const peers = fakeMap(room.peers);
  const ports = fakeMap(room.ports);
  const policy = createPolicyRows(peers.map, ports.map, share);
  /** Rulesets in the kernel, in the order of their peers. */
  const written = () =>
    [...peers.held.values()].map((value) => new DataView(value.buffer, value.byteOffset).getUint32(0, true));
  return { policy, room, peers, ports, written };
}

test('putPeer() does not point to a ruleset that did not fit whole, and takes what the old one allowed', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 2 });
  policy.putPort(port(2, true));
  policy.putPeer(peer(0, 2));
  policy.putPort(port(3, true));
  policy.putPort(port(3, false, 24, 22));
  policy.putPeer(peer(0, 3));
  assert.deepEqual(written(), [0]);
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'], over: [] });
  room.ports.rows = 10;
  ports.map.retry();
  assert.equal(policy.retry(), true);
  assert.deepEqual(written(), [3]);
});

test('putPeer() closes the fallback while a peer whose ruleset denies something has no row, and opens it afterwards', () => {
  const { policy, room, written } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false));
  policy.putPeer(peer(0, 2));
  assert.deepEqual(written(), [2]);
  policy.putPeer(peer(5, 3));
  assert.deepEqual(written(), [0], 'nobody gets through by the fallback');
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'], over: [] });
  policy.putPeer(peer(0, 2));
  assert.deepEqual(written(), [0], 'not by writing it again either');
  room.peers.rows = 2;
  assert.equal(policy.retry(), true);
  assert.deepEqual(written(), [2, 3]);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
});

test('putPeer() leaves the fallback alone when the ruleset without room only allows', () => {
  const { policy, written } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, false));
  policy.putPort(port(3, true, 24, 80));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  assert.deepEqual(written(), [2]);
  assert.deepEqual(policy.status(), { waiting: 1, closed: [], over: [] });
});

test('removePeer() of one that waits opens the fallback again', () => {
  const { policy, written } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  policy.removePeer(peer(5, 3));
  assert.deepEqual(written(), [2]);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
});

test('removePort() keeps a ruleset to which a peer still points because its new one did not fit', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 1 });
  policy.putPort(port(2, false));
  policy.putPeer(peer(5, 2));
  policy.putPort(port(3, false));
  policy.putPeer(peer(5, 3));
  policy.removePort(port(2, false));
  assert.deepEqual([written(), ports.held.size], [[2], 1], 'the old one stays, whole');
  room.ports.rows = 2;
  ports.map.retry();
  policy.retry();
  assert.deepEqual([written(), ports.held.size], [[3], 1], 'and goes when nobody points to it');
});

test('putPort() of a ruleset that was to leave keeps its rows', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 2 });
  policy.putPort(port(1, true));
  policy.putPort(port(5, false));
  policy.putPeer(peer(77, 5));
  policy.putPeer(peer(0, 1));
  policy.putPort(port(6, false));
  policy.putPeer(peer(77, 6));
  policy.removePort(port(5, false));
  policy.putPort(port(5, false));
  policy.putPeer(peer(77, 5));
  policy.removePort(port(6, false));
  assert.deepEqual([written(), ports.held.size, policy.status().waiting], [[5, 1], 2, 0]);
  room.ports.rows = 3;
  policy.putPort(port(6, false));
  policy.putPeer(peer(77, 6));
  policy.removePort(port(5, false));
  assert.deepEqual([written(), ports.held.size], [[6, 1], 2]);
});

test('putPeer() closes a fallback whose new ruleset isolates and has no room, until it has', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 1 });
  policy.putPort(port(1, true));
  policy.putPeer(peer(0, 1));
  policy.putPort(port(9, false));
  policy.putPeer(peer(0, 9));
  assert.deepEqual(written(), [0]);
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'], over: [] });
  room.ports.rows = 2;
  ports.map.retry();
  assert.equal(policy.retry(), true);
  assert.deepEqual([written(), policy.status()], [[9], { waiting: 0, closed: [], over: [] }]);
});

test('putPeer() takes from a peer what a ruleset without room denies or no longer allows, and its rows may go', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 3 });
  policy.putPort(port(8, false));
  policy.putPort(port(4, true));
  policy.putPort(port(3, true, 24, 443));
  policy.putPeer(peer(0, 8));
  policy.putPeer(peer(77, 4));
  policy.putPeer(peer(78, 3));
  policy.putPort(port(9, false, 24, 22));
  policy.putPeer(peer(77, 9));
  policy.putPort(port(10, true, 24, 80));
  policy.putPeer(peer(78, 10));
  assert.deepEqual(written(), [0, 0, 0]);
  policy.removePort(port(4, true));
  assert.equal(ports.held.size, 2);
  room.ports.rows = 10;
  ports.map.retry();
  policy.retry();
  assert.deepEqual([written(), policy.status()], [[8, 9, 10], { waiting: 0, closed: [], over: [] }]);
});

test('putPeer() leaves a peer what it has when the ruleset without room only adds to it', () => {
  const { policy, written } = setUp({ peers: 10, ports: 2 });
  policy.putPort(port(8, false));
  policy.putPort(port(4, true, 24, 80));
  policy.putPeer(peer(0, 8));
  policy.putPeer(peer(77, 4));
  policy.putPort(port(9, true, 24, 80));
  policy.putPort(port(9, true, 24, 443));
  policy.putPeer(peer(77, 9));
  assert.deepEqual([written(), policy.status()], [[8, 4], { waiting: 1, closed: [], over: [] }]);
});

test('retry() does not write a row that was refused before the policy became another', () => {
  const { policy, room, peers, written } = setUp({ peers: 1, ports: 2 });
  policy.putPort(port(8, false));
  policy.putPort(port(4, true));
  policy.putPeer(peer(0, 8));
  policy.putPeer(peer(77, 4));
  policy.putPort(port(9, false));
  policy.putPeer(peer(77, 9));
  room.peers.rows = 5;
  peers.map.retry();
  policy.retry();
  assert.deepEqual(written(), [0]);
});

test('retry() never opens the fallback in between', () => {
  const { policy, peers } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  const { put } = peers.map;
  const values: number[] = [];
  peers.map.put = (key, value, row) => {
    const fits = put(key, value, row);
    if (fits) values.push(value[0]!);
    return fits;
  };
  policy.retry();
  assert.deepEqual(values, []);
});

test('the fallback waits for its ruleset when nobody closes it any more', () => {
  const { policy, room, ports, written } = setUp({ peers: 1, ports: 2 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  policy.putPort(port(6, false));
  policy.putPeer(peer(0, 6));
  policy.removePeer(peer(5, 3));
  assert.deepEqual([written(), policy.status()], [[0], { waiting: 1, closed: ['7/ingress'], over: [] }]);
  room.ports.rows = 3;
  ports.map.retry();
  policy.retry();
  assert.deepEqual([written(), policy.status()], [[6], { waiting: 0, closed: [], over: [] }]);
});

test('standIn() closes the fallback where a class without row is denied something, and opens it afterwards', () => {
  const { policy, written } = setUp({ peers: 10, ports: 10 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false, 24, 22));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  assert.equal(policy.standIn([{ of: 5, as: 9 }]), true);
  assert.deepEqual([written(), policy.status().closed], [[0, 3], ['7/ingress']]);
  assert.equal(policy.standIn([{ of: 5, as: 9 }]), false, 'that is no news');
  policy.removePeer(peer(5, 3));
  assert.deepEqual([written(), policy.status().closed], [[2], []], 'nothing tells the two apart any more');
  policy.putPeer(peer(5, 3));
  assert.deepEqual(written(), [0, 3]);
  assert.equal(policy.standIn([]), true);
  assert.deepEqual([written(), policy.status().closed], [[2, 3], []]);
});

test('whatever stands in for a class is allowed no more than the class, nor than itself, and gets all back afterwards', () => {
  const ports = [80, 443];
  const ruleset = fc.record({
    all: fc.constantFrom(undefined, true, false),
    80: fc.constantFrom(undefined, true, false),
    443: fc.constantFrom(undefined, true, false),
  });
  type Ruleset = { all?: boolean; 80?: boolean; 443?: boolean };
  const verdict = (rules: Ruleset | undefined, number: number): boolean | undefined =>
    rules?.[number as 80 | 443] ?? rules?.all;
  fc.assert(
    fc.property(
      fc.array(ruleset, { minLength: 3, maxLength: 5 }),
      fc.array(fc.tuple(fc.nat(4), fc.nat(5)), { maxLength: 12 }),
      fc.uniqueArray(fc.tuple(fc.integer({ min: 1, max: 2 }), fc.constantFrom(0, 3, 4)), { maxLength: 3 }),
      fc.nat(12),
      (rulesets, peers, pairs, when) => {
        const { policy, peers: map } = setUp({ peers: 100, ports: 100 });
        rulesets.forEach((rules, i) => {
          const { all, ...single } = rules;
          if (all !== undefined) policy.putPort(port(2 + i, all));
          for (const [number, allow] of Object.entries(single))
            if (allow !== undefined) policy.putPort(port(2 + i, allow, 24, Number(number)));
        });
        const wanted = new Map<number, number>([[0, 0]]);
        policy.putPeer(peer(0, 2));
        const standIns = pairs.map(([of, as]) => ({ of, as }));
        const kernel = (number: number, portNumber: number): boolean => {
          const rulesetOf = (key: number) => {
            const value = map.held.get(keyOf(key));
            const at = value && new DataView(value.buffer, value.byteOffset).getUint32(0, true);
            return at === undefined || at === 0 ? undefined : rulesets[at - 2];
          };
          const own = number === 0 ? undefined : verdict(rulesetOf(number), portNumber);
          return own ?? verdict(rulesetOf(0), portNumber) ?? false;
        };
        const keyOf = (number: number) => {
          const key = new Uint8Array(12);
          new DataView(key.buffer).setUint32(0, 7, true);
          new DataView(key.buffer).setUint32(4, number, true);
          new DataView(key.buffer).setUint32(8, 1, true);
          return Buffer.from(key).toString('hex');
        };
        const due = (number: number, portNumber: number): boolean => {
          const own = number === 0 ? undefined : wanted.get(number);
          const rules = own === undefined ? undefined : rulesets[own];
          return verdict(rules, portNumber) ?? verdict(rulesets[wanted.get(0)!], portNumber) ?? false;
        };
        const check = (told: boolean) => {
          for (const number of ports) {
            for (const class_ of [0, 1, 2, 3, 4]) {
              if (kernel(class_, number)) assert.ok(due(class_, number), `class ${class_}, port ${number}`);
            }
            for (const { of, as } of told ? standIns : [])
              if (kernel(as, number)) assert.ok(due(of, number), `${as} for ${of}, port ${number}`);
          }
        };
        peers.forEach(([number, which], i) => {
          if (i === when) policy.standIn(standIns);
          if (which < rulesets.length) {
            wanted.set(number, which);
            policy.putPeer(peer(number, 2 + which));
          } else if (number !== 0) {
            wanted.delete(number);
            policy.removePeer(peer(number, 0));
          }
          check(i >= when);
        });
        policy.standIn(standIns);
        check(true);
        policy.standIn([]);
        assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
        for (const number of ports)
          for (const class_ of [0, 1, 2, 3, 4]) assert.equal(kernel(class_, number), due(class_, number));
      },
    ),
    { numRuns: 500 },
  );
});

test('an owner has no more rows than its share: what is beyond is closed, others have room, and it is said', () => {
  const { policy } = setUp({ peers: 100, ports: 100 }, { peers: 2, ports: 100 });
  const of = (subject: number, number: number, ruleset: number) => ({ ...peer(number, ruleset), subject });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false, 24, 22));
  for (const [subject, owner] of [
    [7, 'greedy'],
    [8, 'greedy'],
    [9, 'modest'],
    [10, ''],
  ] as const) {
    policy.own(subject, owner);
    policy.putPeer(of(subject, 0, 2));
  }
  for (const number of [1, 2, 3]) policy.putPeer(of(10, number, 3));
  policy.putPeer(of(7, 1, 3));
  policy.putPeer(of(8, 1, 3));
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
  policy.putPeer(of(8, 2, 3));
  policy.putPeer(of(9, 1, 3));
  assert.deepEqual(policy.status(), {
    waiting: 1,
    closed: ['8/ingress'],
    over: [{ owner: 'greedy', map: 'policy_peer', share: 2 }],
  });
  assert.equal(policy.retry(), false);
  policy.putPeer(of(7, 1, 2));
  assert.deepEqual(policy.status().waiting, 1, 'a row that is there already may change');
  policy.removePeer(of(7, 1, 2));
  assert.equal(policy.retry(), true);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
});

test('an owner has no more rows of ports than its share: its pods are closed, others have room, and it is said', () => {
  const { policy, ports } = setUp({ peers: 100, ports: 100 }, { peers: 100, ports: 4 });
  const put = (ruleset: number, owner: string, rows: number) => {
    policy.ownRuleset(ruleset, owner);
    policy.putPort(port(ruleset, false));
    for (let i = 1; i < rows; i++) policy.putPort(port(ruleset, true, 24, i));
  };
  const of = (subject: number, number: number, ruleset: number) => ({ ...peer(number, ruleset), subject });
  put(2, 'greedy', 2);
  put(3, 'greedy', 3);
  put(4, 'modest', 3);
  put(5, '', 20);
  policy.putPeer(of(7, 0, 2));
  policy.putPeer(of(7, 1, 3));
  policy.putPeer(of(8, 0, 4));
  policy.putPeer(of(9, 0, 5));
  const over = [{ owner: 'greedy', map: 'policy_ports', share: 4 }];
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'], over });
  assert.equal(ports.held.size, 27);
  assert.equal(policy.retry(), false);
  // A ruleset that nobody wants any more makes room, once nobody points to it.
  put(6, 'greedy', 1);
  policy.putPeer(of(7, 0, 6));
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'], over });
  policy.removePeer(of(7, 1, 3));
  for (const number of [0, 1, 2]) policy.removePort(number === 0 ? port(3, false) : port(3, true, 24, number));
  assert.equal(policy.retry(), true);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
  policy.removePort(port(2, false));
  policy.removePort(port(2, true, 24, 1));
  put(10, 'greedy', 3);
  policy.putPeer(of(7, 1, 10));
  assert.deepEqual(policy.status(), { waiting: 0, closed: [], over: [] });
  put(11, 'greedy', 1);
  policy.putPeer(of(7, 2, 11));
  assert.deepEqual(policy.status().over, over, 'what was removed is counted once');
});

test('a ruleset that takes the place of another one has its room, though the other stays until it is there', () => {
  const { policy, ports, written } = setUp({ peers: 10, ports: 100 }, { peers: 10, ports: 10 });
  const rows = (ruleset: number, count: number) =>
    Array.from({ length: count }, (_, i) => (i === 0 ? port(ruleset, false) : port(ruleset, true, 24, i)));
  const put = (ruleset: number, count: number) => {
    policy.ownRuleset(ruleset, 'one');
    for (const row of rows(ruleset, count)) policy.putPort(row);
  };
  put(2, 6);
  policy.putPeer(peer(0, 2));
  put(3, 7);
  policy.putPeer(peer(0, 3));
  for (const row of rows(2, 6)) policy.removePort(row);
  policy.retry();
  assert.deepEqual([written(), policy.status()], [[3], { waiting: 0, closed: [], over: [] }]);
  assert.equal(ports.held.size, 7);
  put(4, 3);
  assert.equal(ports.held.size, 10, 'what went is counted no more, and what is there once');
  put(5, 1);
  assert.equal(ports.held.size, 10);
});

test('rows that found the map full count for their owner: when there is room again, it gets its share', () => {
  const { policy, ports } = setUp({ peers: 10, ports: 20 }, { peers: 10, ports: 10 });
  for (let i = 0; i < 20; i++) policy.putPort(port(2, i > 0, i > 0 ? 24 : 0, i));
  policy.ownRuleset(3, 'greedy');
  for (let i = 0; i < 50; i++) policy.putPort(port(3, i > 0, i > 0 ? 24 : 0, i));
  policy.putPeer(peer(0, 3));
  for (let i = 0; i < 20; i++) policy.removePort(port(2, i > 0, i > 0 ? 24 : 0, i));
  ports.map.retry();
  policy.retry();
  assert.equal(ports.held.size, 10);
  assert.deepEqual(policy.status().over, [{ owner: 'greedy', map: 'policy_ports', share: 10 }]);
});

test('peers that found the map full count for their owner: when there is room again, it gets its share', () => {
  const { policy, peers, room } = setUp({ peers: 20, ports: 100 }, { peers: 10, ports: 100 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, true, 24, 22));
  policy.own(7, 'greedy');
  for (let i = 1; i <= 20; i++) policy.putPeer({ ...peer(i, 3), subject: 9 });
  for (let i = 1; i <= 50; i++) policy.putPeer(peer(i, 3));
  room.peers.rows = 100;
  peers.map.retry();
  policy.retry();
  assert.equal(peers.held.size, 30);
  assert.deepEqual(policy.status().over, [{ owner: 'greedy', map: 'policy_peer', share: 10 }]);
  for (let i = 1; i <= 50; i++) policy.removePeer(peer(i, 3));
  for (let i = 1; i <= 10; i++) policy.putPeer(peer(i, 3));
  assert.deepEqual([peers.held.size, policy.status()], [30, { waiting: 0, closed: [], over: [] }]);
});
