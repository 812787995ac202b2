// What happens at the datapath's limits: a full ring, full tables, quiet connections, drops at a rate. Nothing is lost
// without being counted.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { datapathMaps } from '../../src/kernel/datapath.gen.ts';
import { withNetns } from '../../src/kernel/netns.ts';
import { readRing } from '../../src/kernel/ring-buffer.ts';
import { testRun } from '../../src/kernel/test-run.ts';
import { typedMap } from '../../src/kernel/typed-map.ts';
import { readPolicies } from '../../src/secure/policy/read-policies.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { denyIngress } from './policy-lines.ts';
import { connections, counter, fromPod, fromWire, takeEvents } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('datapath at its limits', { skip }, () => {
  let bed: Bed;
  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'c', node: 1 },
      ],
      maxEntries: { ct4: 512, events: 65_536 },
      constants: { drop_reports_per_second: 10, lifetime_other_opening: 0 },
    });
  });
  after(() => bed?.close());

  const udp = (sourcePort: number, destinationPort = 9) =>
    udpPacket({
      from: bed.pod('a'),
      to: bed.pod('b'),
      sourceMac: podMac(bed.pod('a').ifindex),
      sourcePort,
      destinationPort,
    });

  /** Sends without reading the ring. */
  function sendOnly(packets: Iterable<Uint8Array>): void {
    const node = bed.nodes[0]!;
    withNetns(node.netnsFd, () => {
      for (const packet of packets)
        testRun(node.datapath!.programFd('pod'), packet, { ctxSkb: { ifindex: bed.pod('a').ifindex } });
    });
  }

  test('events that do not fit in the ring are counted, exactly', () => {
    bed.setPolicies([]);
    const node = bed.nodes[0]!;
    takeEvents(node);
    const before = {
      events: counter(node, 'COUNTER_EVENTS'),
      lost: counter(node, 'COUNTER_EVENTS_LOST'),
      created: counter(node, 'COUNTER_CT_CREATED'),
    };
    sendOnly(Array.from({ length: 2_000 }, (_, i) => udp(10_000 + i)));
    const read = readRing(node.datapath!.ring, () => {});
    const events = counter(node, 'COUNTER_EVENTS') - before.events;
    const lost = counter(node, 'COUNTER_EVENTS_LOST') - before.lost;
    assert.equal(read, events);
    assert.ok(lost > 0, 'the ring was to be full');
    const created = counter(node, 'COUNTER_CT_CREATED') - before.created;
    // The kernels of pods say something of their own now and then.
    for (const count of [created, events + lost]) assert.ok(count >= 2_000 && count <= 2_005, `${count} of 2000`);
  });

  test('connections that the full table pushes out are created minus ended minus there', () => {
    const node = bed.nodes[0]!;
    const live = connections(node).length;
    const created = counter(node, 'COUNTER_CT_CREATED');
    const ended = counter(node, 'COUNTER_CT_ENDED');
    assert.ok(live <= 512);
    assert.ok(created - ended - live > 1_000, `${created} created, ${ended} ended, ${live} there`);
    assert.equal(fromPod(bed, bed.pod('a'), udp(60_000)).outcome, 'sent on', 'the table takes new ones all the same');
  });

  test('the sweep ends what is past its lifetime, and reports it', () => {
    const node = bed.nodes[0]!;
    const before = connections(node).length;
    assert.ok(before > 0);
    takeEvents(node);
    const ended = counter(node, 'COUNTER_CT_ENDED');
    // The lifetime here is 0 ticks: one tick later everything is past it.
    const deadline = performance.now() + 2_000;
    while (connections(node).length > 0 && performance.now() < deadline) node.datapath!.sweep();
    assert.equal(connections(node).length, 0);
    assert.equal(counter(node, 'COUNTER_CT_ENDED') - ended, before);
    const events = takeEvents(node);
    assert.ok(events.every((each) => each.type === 3 && each.reason === 3));
    assert.ok(events.length > 0);
  });

  test('drops are all counted, reported up to the rate, and the next report says how many were not', () => {
    bed.setPolicies([denyIngress('to-b', 'b')]);
    const node = bed.nodes[0]!;
    takeEvents(node);
    const dropped = () =>
      typedMap(node.datapath!.map('drops'), datapathMaps.drops)
        .lookupPerCpu(133)!
        .reduce((sum, each) => sum + each.packets, 0n);
    const before = dropped();
    const unreported = counter(node, 'COUNTER_DROPS_UNREPORTED');
    sendOnly(Array.from({ length: 300 }, (_, i) => udp(20_000 + i)));
    assert.equal(dropped() - before, 300n);
    const events = takeEvents(node).filter((each) => each.type === 4);
    assert.ok(events.length >= 10 && events.length <= 30, `${events.length} reports`);
    const silent = counter(node, 'COUNTER_DROPS_UNREPORTED') - unreported;
    assert.equal(events.length + silent, 300);
    const deadline = performance.now() + 5_000;
    let said = events.reduce((sum, each) => sum + each.suppressed, 0);
    let more = 0;
    while (said < silent && performance.now() < deadline) {
      more++;
      sendOnly([udp(30_000)]);
      for (const each of takeEvents(node)) said += each.suppressed;
    }
    assert.ok(said >= silent, `${said} of ${silent} after ${more} more`);
  });

  test('established packets take the short way, without judging, and make no event', () => {
    bed.setPolicies([]);
    const node = bed.nodes[0]!;
    const [a, c] = [bed.pod('a'), bed.pod('c')];
    const segment = (flags: ('SYN' | 'ACK')[]) =>
      tcpPacket({ from: a, to: c, sourceMac: podMac(a.ifindex), sourcePort: 40_000, destinationPort: 80, flags });
    fromPod(bed, a, segment(['SYN']));
    const judged =
      counter(node, 'COUNTER_JUDGED') + counter(node, 'COUNTER_REJUDGED') + counter(node, 'COUNTER_FORWARDED');
    for (let i = 0; i < 100; i++) assert.equal(fromPod(bed, a, segment(['ACK'])).events.length, 0);
    assert.equal(
      counter(node, 'COUNTER_JUDGED') + counter(node, 'COUNTER_REJUDGED') + counter(node, 'COUNTER_FORWARDED'),
      judged,
      'all took the short way',
    );
  });
});

describe('policy that does not fit', { skip }, () => {
  let bed: Bed;
  before(async () => {
    const names = ['a', 'b', 'c', 'd'];
    bed = await createBed({
      pods: names.map((name) => ({ name, node: 0 })),
      maxEntries: { policy_ports: 24, policy_peer: 16 },
    });
  });
  after(() => bed?.close());

  /** Denies `from` these ports of `to`, and isolates nobody. */
  const denyPorts = (name: string, to: string, from: string, ports: readonly number[]) =>
    readPolicies([
      {
        apiVersion: 'cilium.io/v2',
        kind: 'CiliumNetworkPolicy',
        metadata: { name, namespace: 'default' },
        spec: {
          endpointSelector: { matchLabels: { app: to } },
          enableDefaultDeny: { ingress: false },
          ingressDeny: [
            {
              fromEndpoints: [{ matchLabels: { app: from } }],
              toPorts: [{ ports: ports.map((port) => ({ port: String(port), protocol: 'TCP' })) }],
            },
          ],
        },
      },
    ])[0]!;
  const odd = (count: number, first = 5_001) => Array.from({ length: count }, (_, i) => first + 2 * i);
  let sourcePort = 1_024;
  const outcome = (from: string, to: string, destinationPort: number) => {
    const [source, target] = [bed.pod(from), bed.pod(to)];
    const sourceMac = podMac(source.ifindex);
    const packet = { from: source, to: target, sourceMac, sourcePort: sourcePort++, destinationPort };
    return fromPod(bed, source, tcpPacket({ ...packet, flags: ['SYN'] })).outcome;
  };
  const status = () => bed.nodes[0]!.writer!.policyStatus();

  test('a deny without room opens nothing, not even what nobody denied before, and says so', () => {
    bed.setPolicies([]);
    assert.equal(outcome('a', 'b', 22), 'sent on');
    bed.setPolicies([denyPorts('big', 'b', 'a', [22, ...odd(30)])]);
    assert.ok(status().waiting > 0);
    assert.equal(status().closed.length, 1);
    for (const port of [22, 5_001, 5_059]) assert.equal(outcome('a', 'b', port), 'dropped', String(port));
    assert.equal(outcome('c', 'd', 22), 'sent on', 'others are untouched');
    bed.setPolicies([]);
    assert.deepEqual(status(), { waiting: 0, closed: [], over: [], unplaced: 0 });
    assert.equal(outcome('a', 'b', 22), 'sent on');
  });

  test('the old policy stays while the new one has no room', () => {
    bed.setPolicies([denyPorts('grows', 'b', 'a', [22])]);
    assert.deepEqual([outcome('a', 'b', 22), outcome('a', 'b', 80)], ['dropped', 'sent on']);
    bed.setPolicies([denyPorts('grows', 'b', 'a', [22, ...odd(30)])]);
    assert.ok(status().waiting > 0);
    assert.equal(outcome('a', 'b', 22), 'dropped', 'what was denied stays denied');
    bed.setPolicies([denyPorts('grows', 'b', 'a', [22, 80])]);
    assert.equal(status().waiting, 0);
    assert.deepEqual(
      [outcome('a', 'b', 22), outcome('a', 'b', 80), outcome('a', 'b', 81)],
      ['dropped', 'dropped', 'sent on'],
    );
  });

  test('room that is made later is used', () => {
    const filler = denyPorts('filler', 'd', 'c', odd(14));
    const late = denyPorts('late', 'b', 'a', [22, ...odd(12, 6_001)]);
    bed.setPolicies([filler]);
    assert.equal(status().waiting, 0);
    bed.setPolicies([filler, late]);
    assert.ok(status().waiting > 0);
    assert.equal(outcome('a', 'b', 22), 'dropped');
    assert.equal(outcome('c', 'd', 5_001), 'dropped');
    bed.setPolicies([late]);
    assert.deepEqual(status(), { waiting: 0, closed: [], over: [], unplaced: 0 });
    assert.deepEqual(
      [outcome('a', 'b', 22), outcome('a', 'b', 6_003), outcome('a', 'b', 80), outcome('c', 'd', 5_001)],
      ['dropped', 'dropped', 'sent on', 'sent on'],
    );
  });

  test('a peer without room is closed, with all others that have no row of their own', () => {
    bed.setPolicies([]);
    const policies = ['a', 'b', 'c', 'd'].flatMap((to) =>
      ['a', 'b', 'c', 'd'].filter((from) => from !== to).map((from) => denyPorts(`${from}-${to}`, to, from, [22])),
    );
    bed.setPolicies(policies);
    assert.ok(status().waiting > 0, 'the map of peers was to be full');
    for (const to of ['a', 'b', 'c', 'd']) {
      for (const from of ['a', 'b', 'c', 'd']) {
        if (from !== to) assert.equal(outcome(from, to, 22), 'dropped', `${from} to ${to}`);
      }
    }
    bed.setPolicies(policies.slice(0, 1));
    assert.deepEqual(status(), { waiting: 0, closed: [], over: [], unplaced: 0 });
    assert.deepEqual([outcome('c', 'b', 22), outcome('d', 'c', 22)], ['sent on', 'sent on']);
  });
});

describe('addresses that do not fit', { skip }, () => {
  let bed: Bed;
  before(async () => {
    const names = ['a', 'b', 'c'];
    // The six blocks that every node of the bed knows, and four of policies; two addresses of the first map are kept.
    bed = await createBed({
      pods: names.map((name) => ({ name, node: 0 })),
      maxEntries: { ipcache_prefix: 10, ipcache: 32 },
    });
  });
  after(() => bed?.close());

  const outside = (number: number) => ({ ipv4: `198.51.${number}.7`, ipv6: `2001:db8:${number}::7` });
  const blocksOf = (number: number) => [`198.51.${number}.0/24`, `2001:db8:${number}::/48`];
  const policy = (name: string, to: string, spec: Record<string, unknown>) =>
    readPolicies([
      {
        apiVersion: 'cilium.io/v2',
        kind: 'CiliumNetworkPolicy',
        metadata: { name, namespace: 'default' },
        spec: { endpointSelector: { matchLabels: { app: to } }, ...spec },
      },
    ])[0]!;
  const denies = (name: string, to: string, numbers: readonly number[]) =>
    policy(name, to, {
      enableDefaultDeny: { ingress: false },
      ingressDeny: [{ fromCIDR: numbers.flatMap(blocksOf) }],
    });
  let sourcePort = 1_024;
  const arriving = (number: number, to: string, destinationPort = 80) =>
    [false, true].map((six) => {
      const ends = { from: outside(number), to: bed.pod(to), six, sourcePort: sourcePort++, destinationPort };
      return fromWire(bed, 0, tcpPacket({ ...ends, flags: ['SYN'] })).outcome;
    });
  const within = (from: string, to: string) => {
    const [source, target] = [bed.pod(from), bed.pod(to)];
    const ends = { from: source, to: target, sourceMac: podMac(source.ifindex), sourcePort: sourcePort++ };
    return fromPod(bed, source, tcpPacket({ ...ends, destinationPort: 80, flags: ['SYN'] })).outcome;
  };
  const status = () => bed.nodes[0]!.writer!.policyStatus();
  const both = (outcome: string) => [outcome, outcome];

  test('a block that is denied and has no room is denied all the same, and costs its own policy only', () => {
    bed.setPolicies([]);
    assert.deepEqual(arriving(9, 'b'), both('sent on'));
    bed.setPolicies([denies('fits', 'c', [1]), denies('big', 'b', [2, 3, 4])]);
    assert.ok(status().unplaced > 0, 'the map of blocks was to be full');
    for (const number of [2, 3, 4]) assert.deepEqual(arriving(number, 'b'), both('dropped'), String(number));
    assert.deepEqual(arriving(9, 'b'), both('dropped'), 'what is around it is closed with it');
    assert.deepEqual([arriving(1, 'c'), arriving(9, 'c')], [both('dropped'), both('sent on')]);
    assert.equal(within('b', 'c'), 'sent on', 'others are untouched');
    assert.match(bed.nodes[0]!.writer!.policyProblem()!, /rows of map ipcache_prefix cannot be written/);
    bed.setPolicies([denies('big', 'b', [2])]);
    assert.deepEqual(status(), { waiting: 0, closed: [], over: [], unplaced: 0 });
    assert.deepEqual([arriving(2, 'b'), arriving(9, 'b')], [both('dropped'), both('sent on')]);
  });

  test('an exception without room is not let in with the block around it', () => {
    const numbers = [1, 2, 3, 4];
    const allow = policy('holes', 'b', {
      ingress: [
        {
          fromCIDRSet: [
            { cidr: '198.51.0.0/16', except: numbers.map((number) => blocksOf(number)[0]!) },
            { cidr: '2001:db8::/32', except: numbers.map((number) => blocksOf(number)[1]!) },
          ],
        },
      ],
    });
    bed.setPolicies([allow]);
    assert.ok(status().unplaced > 0);
    assert.deepEqual(status().closed, [], 'the fallback denies anyway');
    for (const number of numbers) assert.deepEqual(arriving(number, 'b'), both('dropped'), String(number));
    bed.setPolicies([]);
    assert.deepEqual(status(), { waiting: 0, closed: [], over: [], unplaced: 0 });
    assert.deepEqual(arriving(1, 'b'), both('sent on'));
  });

  test('a pod elsewhere without room is denied what its labels deny; pods of this node have rows kept for them', async () => {
    bed.setPolicies([
      policy('no-far', 'b', {
        enableDefaultDeny: { ingress: false },
        ingressDeny: [{ fromEndpoints: [{ matchLabels: { tier: 'far' } }] }],
      }),
    ]);
    const far = await Array.fromAsync({ length: 12 }, (_, i) =>
      bed.addPod({ name: `far${i}`, node: 1, labels: { tier: 'far' } }),
    );
    const from = (pod: (typeof far)[number], to: string) =>
      [false, true].map((six) => {
        const ends = { from: pod, to: bed.pod(to), six, sourcePort: sourcePort++, destinationPort: 80 };
        return fromWire(bed, 0, tcpPacket({ ...ends, flags: ['SYN'] })).outcome;
      });
    assert.ok(status().unplaced > 0, 'the map of addresses was to be full');
    for (const pod of far) assert.deepEqual(from(pod, 'b'), both('dropped'), pod.name);
    const near = await bed.addPod({ name: 'near', node: 0 });
    assert.equal(within('near', 'c'), 'sent on');
    assert.equal(within('c', near.name), 'sent on');
    bed.setPolicies([]);
    assert.deepEqual(from(far.at(-1)!, 'b'), both('sent on'));
  });
});
