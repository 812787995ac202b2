import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyPeerRow, PolicyPortRow } from '../../core/rows.ts';
import type { KernelMap } from './kernel-map.ts';
import { createPolicyRows } from './policy-rows.ts';

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
    get: (key) => held.get(Buffer.from(key).toString('hex')),
    remove(key, row) {
      failing.delete(row);
      return held.delete(Buffer.from(key).toString('hex'));
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

function setUp(rows: { peers: number; ports: number }) {
  const room = { peers: { rows: rows.peers }, ports: { rows: rows.ports } };
  const peers = fakeMap(room.peers);
  const ports = fakeMap(room.ports);
  const policy = createPolicyRows(peers.map, ports.map);
  /** Rulesets in the kernel, in the order of their peers. */
  const written = () =>
    [...peers.held.values()].map((value) => new DataView(value.buffer, value.byteOffset).getUint32(0, true));
  return { policy, room, peers, ports, written };
}

test('putPeer() does not point to a ruleset that did not fit whole, and the old one stays', () => {
  const { policy, room, ports, written } = setUp({ peers: 10, ports: 2 });
  policy.putPort(port(2, true));
  policy.putPeer(peer(0, 2));
  policy.putPort(port(3, true));
  policy.putPort(port(3, false, 24, 22));
  policy.putPeer(peer(0, 3));
  assert.deepEqual(written(), [2]);
  assert.equal(policy.status().waiting, 1);
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
  assert.deepEqual(policy.status(), { waiting: 1, closed: ['7/ingress'] });
  policy.putPeer(peer(0, 2));
  assert.deepEqual(written(), [0], 'not by writing it again either');
  room.peers.rows = 2;
  assert.equal(policy.retry(), true);
  assert.deepEqual(written(), [2, 3]);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [] });
});

test('putPeer() leaves the fallback alone when the ruleset without room only allows', () => {
  const { policy, written } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, false));
  policy.putPort(port(3, true, 24, 80));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  assert.deepEqual(written(), [2]);
  assert.deepEqual(policy.status(), { waiting: 1, closed: [] });
});

test('removePeer() of one that waits opens the fallback again', () => {
  const { policy, written } = setUp({ peers: 1, ports: 10 });
  policy.putPort(port(2, true));
  policy.putPort(port(3, false));
  policy.putPeer(peer(0, 2));
  policy.putPeer(peer(5, 3));
  policy.removePeer(peer(5, 3));
  assert.deepEqual(written(), [2]);
  assert.deepEqual(policy.status(), { waiting: 0, closed: [] });
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
