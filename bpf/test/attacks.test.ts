// What a pod, or a host on a network, may try against the programs: each test is one attack that must not work.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { EndCause, EventType } from '../../src/kernel/datapath.gen.ts';
import { type Bed, type BedPod, createBed } from '../../test/bed/bed.ts';
import { echoPacket, icmpErrorPacket, type PacketSpec, tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { denyIngress } from './policy-lines.ts';
import { connections, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('attacks', { skip }, () => {
  let bed: Bed;
  let a: BedPod;
  let b: BedPod;
  let c: BedPod;
  let d: BedPod;
  let port = 30_000;
  const nextPort = () => port++;

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'd', node: 0 },
        { name: 'c', node: 1 },
      ],
      constants: { drop_reports_per_second: 1_000_000 },
    });
    [a, b, c, d] = [bed.pod('a'), bed.pod('b'), bed.pod('c'), bed.pod('d')];
  });
  after(() => bed?.close());

  const ends = (from: BedPod, to: { ipv4: string; ipv6: string }, six: boolean): PacketSpec => ({
    from,
    to,
    six,
    sourceMac: podMac(from.ifindex),
  });

  for (const six of [false, true]) {
    const family = six ? 'IPv6' : 'IPv4';

    test(`a pod says nothing about the connections of others (${family})`, () => {
      bed.setPolicies([denyIngress('to-b', 'b')]);
      const about = udpPacket({ ...ends(b, d, six), sourcePort: nextPort(), destinationPort: 53 });
      assert.equal(fromPod(bed, b, about).outcome, 'sent on');
      const error = { type: six ? 1 : 3, code: six ? 4 : 3, about };
      assert.equal(fromPod(bed, a, icmpErrorPacket({ ...ends(a, b, six), ...error })).reason, 'ICMP_ERROR_UNRELATED');
      assert.equal(fromPod(bed, d, icmpErrorPacket({ ...ends(d, b, six), ...error })).outcome, 'sent on');
    });

    test(`a forged SYN ends nobody's connection (${family})`, () => {
      bed.setPolicies([]);
      const ports = { sourcePort: nextPort(), destinationPort: 80 };
      const back = { sourcePort: 80, destinationPort: ports.sourcePort };
      fromPod(bed, b, tcpPacket({ ...ends(b, d, six), ...ports, flags: ['SYN'] }));
      fromPod(bed, d, tcpPacket({ ...ends(d, b, six), ...back, flags: ['SYN', 'ACK'] }));
      const before = connections(bed.nodes[0]!).length;
      const forged = tcpPacket({ ...ends(b, d, six), sourceMac: podMac(a.ifindex), ...ports, flags: ['SYN'] });
      const result = fromPod(bed, a, forged);
      assert.equal(result.reason, 'INVALID_SOURCE_IP');
      assert.ok(result.events.every((event) => event.type !== EventType.EVENT_END));
      assert.equal(connections(bed.nodes[0]!).length, before);
    });

    test(`a SYN that policy denies ends no connection; one that it allows does (${family})`, () => {
      bed.setPolicies([denyIngress('to-b', 'b')]);
      const ports = { sourcePort: nextPort(), destinationPort: 80 };
      const back = { sourcePort: 80, destinationPort: ports.sourcePort };
      fromPod(bed, b, tcpPacket({ ...ends(b, d, six), ...ports, flags: ['SYN'] }));
      fromPod(bed, d, tcpPacket({ ...ends(d, b, six), ...back, flags: ['SYN', 'ACK'] }));
      const denied = fromPod(bed, d, tcpPacket({ ...ends(d, b, six), ...back, flags: ['SYN'] }));
      assert.equal(denied.reason, 'POLICY_DENIED');
      assert.ok(denied.events.every((event) => event.type !== EventType.EVENT_END));
      assert.equal(fromPod(bed, d, tcpPacket({ ...ends(d, b, six), ...back, flags: ['ACK'] })).outcome, 'sent on');
      const again = fromPod(bed, b, tcpPacket({ ...ends(b, d, six), ...ports, flags: ['SYN'] }));
      assert.deepEqual(
        again.events.map((event) => [event.type, event.reason]),
        [
          [EventType.EVENT_END, EndCause.END_REOPENED],
          [EventType.EVENT_NEW, 0],
        ],
      );
    });

    test(`an echo request is no reply to one (${family})`, () => {
      bed.setPolicies([denyIngress('to-a', 'a')]);
      const id = nextPort();
      assert.equal(fromPod(bed, a, echoPacket({ ...ends(a, b, six), id })).outcome, 'sent on');
      assert.equal(fromPod(bed, b, echoPacket({ ...ends(b, a, six), id })).reason, 'POLICY_DENIED');
      assert.equal(fromPod(bed, b, echoPacket({ ...ends(b, a, six), id, reply: true })).outcome, 'sent on');
    });

    test(`what was denied stays denied, and counts as judged at each packet (${family})`, () => {
      bed.setPolicies([]);
      const ports = { sourcePort: nextPort(), destinationPort: 7 };
      const packet = udpPacket({ ...ends(a, b, six), ...ports });
      assert.equal(fromPod(bed, a, packet).outcome, 'sent on');
      bed.setPolicies([denyIngress('to-b', 'b')]);
      for (let i = 0; i < 3; i++) assert.equal(fromPod(bed, a, packet).reason, 'POLICY_DENIED');
      bed.setPolicies([]);
      assert.equal(fromPod(bed, a, packet).outcome, 'sent on');
    });
  }

  test('an IPv6 packet cannot speak for an IPv4 address', () => {
    bed.setPolicies([]);
    const ports = { sourcePort: nextPort(), destinationPort: 80, flags: ['SYN'] as const, six: true };
    /** The packet with ::ffff:ipv4 in place of its source or destination. */
    const mapped = (packet: Uint8Array, end: 'source' | 'destination', ipv4: string) => {
      packet.set(
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...ipv4.split('.').map(Number)],
        end === 'source' ? 22 : 38,
      );
      return packet;
    };
    const arriving = mapped(tcpPacket({ from: c, to: a, ...ports }), 'source', c.ipv4);
    assert.equal(fromWire(bed, 0, arriving).reason, 'INVALID_PACKET_DROPPED');
    for (const to of [b.ipv4, c.ipv4]) {
      const leaving = mapped(tcpPacket({ ...ends(a, b, true), ...ports }), 'destination', to);
      assert.equal(fromPod(bed, a, leaving).reason, 'INVALID_PACKET_DROPPED');
    }
    const own = mapped(tcpPacket({ ...ends(a, b, true), ...ports }), 'source', a.ipv4);
    assert.equal(fromPod(bed, a, own).reason, 'INVALID_PACKET_DROPPED');
  });
});
