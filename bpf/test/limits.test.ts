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
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { denyIngress } from './policy-lines.ts';
import { connections, counter, fromPod, takeEvents } from './probe.ts';

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
    assert.equal(counter(node, 'COUNTER_CT_CREATED') - before.created, 2_000);
    assert.equal(events + lost, 2_000);
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
