// The programs on single packets: who may send, what policy says, what the connection table remembers. Real programs,
// real maps, real routes; the packets are made here.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { CtState } from '../../src/kernel/datapath.gen.ts';
import { type Bed, type BedPod, createBed } from '../../test/bed/bed.ts';
import {
  echoPacket,
  icmpErrorPacket,
  icmpPacket,
  ipPacket,
  type PacketSpec,
  sctpPacket,
  type TcpFlag,
  tcpPacket,
  udpPacket,
} from '../../test/bed/packet.ts';
import { allowIngress, denyIngress, networkPolicy } from './policy-lines.ts';
import { connections, counter, fromNode, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('datapath', { skip }, () => {
  let bed: Bed;
  let a: BedPod;
  let b: BedPod;
  let c: BedPod;
  let port = 20_000;
  const nextPort = () => port++;

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'c', node: 1 },
      ],
      constants: { drop_reports_per_second: 1_000_000 },
    });
    [a, b, c] = [bed.pod('a'), bed.pod('b'), bed.pod('c')];
  });
  after(() => bed?.close());

  const ends = (from: BedPod, to: { ipv4: string; ipv6: string }, six: boolean): PacketSpec => ({
    from,
    to,
    six,
    sourceMac: podMac(from.ifindex),
  });
  const tcp = (
    from: BedPod,
    to: { ipv4: string; ipv6: string },
    six: boolean,
    sourcePort: number,
    destinationPort: number,
    flags: TcpFlag[],
    more: { sequence?: number; acknowledge?: number } = {},
  ) => tcpPacket({ ...ends(from, to, six), sourcePort, destinationPort, flags, ...more });
  const macOf = (frame: Uint8Array, offset: number) =>
    [...frame.slice(offset, offset + 6)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');

  for (const six of [false, true]) {
    const family = six ? 'IPv6' : 'IPv4';

    test(`pod sends a frame to a pod of its node with that pod's MAC (${family})`, () => {
      bed.setPolicies([]);
      const result = fromPod(bed, a, tcp(a, b, six, nextPort(), 80, ['SYN']));
      assert.equal(result.outcome, 'sent on');
      assert.equal(macOf(result.data, 0), podMac(b.ifindex));
      assert.equal(result.events.length, 1);
      assert.equal(result.events[0]!.type, 1);
      assert.deepEqual(result.events[0]!.identity, [a.identity, b.identity]);
    });

    test(`pod takes one hop on the way to another node, with a right checksum (${family})`, () => {
      bed.setPolicies([]);
      const result = fromPod(
        bed,
        a,
        tcpPacket({ ...ends(a, c, six), sourcePort: nextPort(), destinationPort: 80, flags: ['SYN'], ttl: 17 }),
      );
      assert.equal(result.outcome, 'sent on');
      if (six) assert.equal(result.data[21], 16);
      else {
        assert.equal(result.data[22], 16);
        const sum = Array.from(
          { length: 10 },
          (_, i) => (result.data[14 + 2 * i]! << 8) | result.data[15 + 2 * i]!,
        ).reduce((x, y) => x + y, 0);
        assert.equal(((sum & 0xffff) + (sum >> 16)) & 0xffff, 0xffff);
      }
      const last = fromPod(
        bed,
        a,
        tcpPacket({ ...ends(a, c, six), sourcePort: nextPort(), destinationPort: 80, flags: ['SYN'], ttl: 1 }),
      );
      assert.equal(last.reason, 'TTL_EXCEEDED');
    });

    test(`pod cannot forge its source address or MAC (${family})`, () => {
      bed.setPolicies([]);
      assert.equal(
        fromPod(
          bed,
          a,
          tcpPacket({
            ...ends(b, c, six),
            sourceMac: podMac(a.ifindex),
            sourcePort: nextPort(),
            destinationPort: 80,
            flags: ['SYN'],
          }),
        ).reason,
        'INVALID_SOURCE_IP',
      );
      assert.equal(
        fromPod(
          bed,
          a,
          tcpPacket({
            ...ends(a, c, six),
            sourceMac: podMac(b.ifindex),
            sourcePort: nextPort(),
            destinationPort: 80,
            flags: ['SYN'],
          }),
        ).reason,
        'INVALID_SOURCE_MAC',
      );
      const node = { ipv4: bed.nodes[0]!.ipv4, ipv6: bed.nodes[0]!.ipv6 };
      assert.equal(
        fromPod(
          bed,
          a,
          tcpPacket({
            from: node,
            to: b,
            six,
            sourceMac: podMac(a.ifindex),
            sourcePort: nextPort(),
            destinationPort: 80,
            flags: ['SYN'],
          }),
        ).reason,
        'INVALID_SOURCE_IP',
      );
    });

    test(`pod cannot take part in a known connection of others (${family})`, () => {
      bed.setPolicies([]);
      const p = nextPort();
      fromPod(bed, b, tcp(b, c, six, p, 80, ['SYN']));
      const forged = tcpPacket({
        ...ends(b, c, six),
        sourceMac: podMac(a.ifindex),
        sourcePort: p,
        destinationPort: 80,
        flags: ['ACK'],
      });
      assert.equal(fromPod(bed, a, forged).reason, 'INVALID_SOURCE_IP');
      assert.equal(fromPod(bed, b, tcp(b, c, six, p, 80, ['ACK'])).outcome, 'sent on');
    });

    test(`device drops what claims to come from a pod of this node, or from the node (${family})`, () => {
      bed.setPolicies([]);
      const spec = { six, sourcePort: nextPort(), destinationPort: 80, flags: ['SYN'] as TcpFlag[] };
      assert.equal(fromWire(bed, 0, tcpPacket({ from: b, to: a, ...spec })).reason, 'INVALID_SOURCE_IP');
      assert.equal(fromWire(bed, 0, tcpPacket({ from: bed.nodes[0]!, to: a, ...spec })).reason, 'INVALID_IDENTITY');
      assert.equal(
        fromWire(bed, 0, tcpPacket({ from: c, to: { ipv4: '10.244.0.99', ipv6: 'fd44:0:0:1::99' }, ...spec })).reason,
        'STALE_OR_UNROUTABLE_IP',
      );
      assert.equal(fromWire(bed, 0, tcpPacket({ from: c, to: bed.nodes[0]!, ...spec })).outcome, 'left to the kernel');
    });

    test(`policy decides at both ends of a node's own connection and names the side (${family})`, () => {
      bed.setPolicies([allowIngress('to-b', 'b', 'c', 80)]);
      const denied = fromPod(bed, a, tcp(a, b, six, nextPort(), 80, ['SYN']));
      assert.equal(denied.reason, 'POLICY_DENIED');
      assert.equal(denied.events[0]!.direction, 1);
      assert.equal(bed.nodes[0]!.compiler!.cookie(denied.events[0]!.cookie[1]!)!.rules[0]!.name, 'to-b');
      bed.setPolicies([
        networkPolicy('from-a', { podSelector: { matchLabels: { app: 'a' } }, policyTypes: ['Egress'] }),
      ]);
      const egress = fromPod(bed, a, tcp(a, c, six, nextPort(), 80, ['SYN']));
      assert.equal(egress.reason, 'POLICY_DENIED');
      assert.equal(egress.events[0]!.direction, 2);
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 80)]);
      const allowed = fromPod(bed, a, tcp(a, b, six, nextPort(), 80, ['SYN']));
      assert.equal(allowed.outcome, 'sent on');
      assert.equal(bed.nodes[0]!.compiler!.cookie(allowed.events[0]!.cookie[1]!)!.rules[0]!.ruleIndex, 0);
      assert.equal(fromPod(bed, a, tcp(a, b, six, nextPort(), 81, ['SYN'])).reason, 'POLICY_DENIED');
      assert.equal(
        fromPod(bed, a, udpPacket({ ...ends(a, b, six), sourcePort: nextPort(), destinationPort: 80 })).reason,
        'POLICY_DENIED',
      );
    });

    test(`replies need no rule, and only replies (${family})`, () => {
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 80), denyIngress('to-a', 'a')]);
      const p = nextPort();
      assert.equal(fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN'])).reason, 'POLICY_DENIED');
      fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN']));
      assert.equal(fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN', 'ACK'])).outcome, 'sent on');
      assert.equal(fromPod(bed, b, tcp(b, a, six, 80, p + 1000, ['SYN'])).reason, 'POLICY_DENIED');
      assert.equal(
        fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN'])).reason,
        'POLICY_DENIED',
        'a SYN of the responder is a connection of its own',
      );
    });

    test(`a new deny cuts a live connection at its next packet, and a new allow frees it (${family})`, () => {
      const p = nextPort();
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 80)]);
      fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN']));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN', 'ACK']));
      assert.equal(fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'])).outcome, 'sent on');
      bed.setPolicies([denyIngress('to-b', 'b')]);
      const created = counter(bed.nodes[0]!, 'COUNTER_CT_CREATED');
      const cut = fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK']));
      assert.equal(cut.reason, 'POLICY_DENIED', 'the reply direction is cut as well');
      assert.equal(fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'])).reason, 'POLICY_DENIED');
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 80)]);
      assert.equal(
        fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK'])).outcome,
        'sent on',
        'judged in the original direction',
      );
      assert.equal(fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'])).outcome, 'sent on');
      assert.equal(counter(bed.nodes[0]!, 'COUNTER_CT_CREATED'), created, 'the entry was never deleted');
    });

    test(`TCP without SYN and without an entry is judged as its sender's, then as a reply (${family})`, () => {
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 80), denyIngress('to-a', 'a')]);
      assert.equal(fromPod(bed, a, tcp(a, b, six, nextPort(), 80, ['ACK'])).outcome, 'sent on');
      const p = nextPort();
      const reply = fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK']));
      assert.equal(reply.outcome, 'sent on');
      assert.equal(reply.events[0]!.dport, 80, 'the originator is the receiver');
      assert.equal(fromPod(bed, b, tcp(b, a, six, 81, nextPort(), ['ACK'])).reason, 'POLICY_DENIED');
      const before = connections(bed.nodes[0]!).length;
      assert.equal(fromPod(bed, b, tcp(b, a, six, 80, nextPort(), ['RST'])).outcome, 'sent on');
      assert.equal(connections(bed.nodes[0]!).length, before, 'a reset makes no entry');
    });

    test(`an entry goes with the last acknowledgement, not before (${family})`, () => {
      bed.setPolicies([]);
      const p = nextPort();
      const mine = () => connections(bed.nodes[0]!).filter((entry) => entry.state === CtState.CT_CLOSING).length;
      const base = mine();
      fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN'], { sequence: 100 }));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN', 'ACK'], { sequence: 500, acknowledge: 101 }));
      fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK', 'FIN'], { sequence: 101, acknowledge: 501 }));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK', 'FIN'], { sequence: 501, acknowledge: 102 }));
      assert.equal(mine(), base + 1);
      fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'], { sequence: 102, acknowledge: 501 }));
      assert.equal(mine(), base + 1, 'this does not acknowledge the FIN');
      const end = fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'], { sequence: 102, acknowledge: 502 }));
      assert.equal(mine(), base);
      assert.equal(end.events[0]!.type, 3);
      assert.equal(end.events[0]!.reason, 1);
      assert.deepEqual(end.events[0]!.packets, [4n, 2n]);
    });

    test(`an entry outlives a close from both ends at once (${family})`, () => {
      bed.setPolicies([]);
      const p = nextPort();
      const live = () => connections(bed.nodes[0]!).length;
      fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN'], { sequence: 100 }));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN', 'ACK'], { sequence: 500, acknowledge: 101 }));
      const open = live();
      fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK', 'FIN'], { sequence: 101, acknowledge: 501 }));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK', 'FIN'], { sequence: 501, acknowledge: 101 }));
      fromPod(bed, a, tcp(a, b, six, p, 80, ['ACK'], { sequence: 102, acknowledge: 502 }));
      assert.equal(live(), open, "the acknowledgement of a's FIN is still to come");
      const end = fromPod(bed, b, tcp(b, a, six, 80, p, ['ACK'], { sequence: 502, acknowledge: 102 }));
      assert.equal(live(), open - 1);
      assert.equal(end.events[0]!.reason, 1);
    });

    test(`a port that is opened again is judged anew (${family})`, () => {
      const p = nextPort();
      bed.setPolicies([]);
      fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN']));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['SYN', 'ACK']));
      fromPod(bed, b, tcp(b, a, six, 80, p, ['RST']));
      const again = fromPod(bed, a, tcp(a, b, six, p, 80, ['SYN']));
      assert.equal(again.outcome, 'sent on');
      assert.ok(again.events.some((each) => each.type === 1));
    });

    test(`UDP, SCTP and echo are tracked by their own terms (${family})`, () => {
      bed.setPolicies([
        networkPolicy('to-b', {
          podSelector: { matchLabels: { app: 'b' } },
          policyTypes: ['Ingress'],
          ingress: [
            {
              ports: [
                { port: 53, protocol: 'UDP' },
                { port: 3868, protocol: 'SCTP' },
              ],
            },
          ],
        }),
        denyIngress('to-a', 'a'),
      ]);
      const p = nextPort();
      assert.equal(
        fromPod(bed, b, udpPacket({ ...ends(b, a, six), sourcePort: 53, destinationPort: p })).reason,
        'POLICY_DENIED',
      );
      assert.equal(
        fromPod(bed, a, udpPacket({ ...ends(a, b, six), sourcePort: p, destinationPort: 53 })).outcome,
        'sent on',
      );
      assert.equal(
        fromPod(bed, b, udpPacket({ ...ends(b, a, six), sourcePort: 53, destinationPort: p })).outcome,
        'sent on',
      );
      assert.equal(
        fromPod(bed, a, sctpPacket({ ...ends(a, b, six), sourcePort: p, destinationPort: 3868 })).outcome,
        'sent on',
      );
      assert.equal(
        fromPod(bed, a, sctpPacket({ ...ends(a, b, six), sourcePort: p, destinationPort: 3869 })).reason,
        'POLICY_DENIED',
      );
      assert.equal(
        fromPod(bed, a, echoPacket({ ...ends(a, b, six), id: p })).reason,
        'POLICY_DENIED',
        'rules with ports do not cover ICMP',
      );
      assert.equal(fromPod(bed, a, echoPacket({ ...ends(a, c, six), id: p })).outcome, 'sent on');
      assert.equal(fromWire(bed, 0, echoPacket({ from: c, to: a, six, id: p, reply: true })).outcome, 'sent on');
      assert.equal(
        fromWire(bed, 0, echoPacket({ from: c, to: a, six, id: p + 1, reply: true })).reason,
        'POLICY_DENIED',
      );
    });

    test(`an ICMP error passes with the connection it speaks of, and without one it does not (${family})`, () => {
      bed.setPolicies([denyIngress('to-a', 'a')]);
      const p = nextPort();
      const sent = udpPacket({ ...ends(a, c, six), sourcePort: p, destinationPort: 9 });
      fromPod(bed, a, sent);
      const router = { ipv4: '10.9.0.77', ipv6: 'fd09::77' };
      const unreachable = { from: router, to: a, six, type: six ? 1 : 3, code: six ? 4 : 3 };
      assert.equal(fromWire(bed, 0, icmpErrorPacket({ ...unreachable, about: sent })).outcome, 'sent on');
      const never = udpPacket({ ...ends(a, c, six), sourcePort: nextPort(), destinationPort: 9 });
      assert.equal(fromWire(bed, 0, icmpErrorPacket({ ...unreachable, about: never })).reason, 'ICMP_ERROR_UNRELATED');
      assert.equal(
        fromWire(bed, 0, icmpErrorPacket({ ...unreachable, to: b, about: sent })).reason,
        'ICMP_ERROR_UNRELATED',
        'not to somebody else',
      );
      assert.equal(
        fromPod(bed, b, icmpErrorPacket({ ...unreachable, from: c, sourceMac: podMac(b.ifindex), about: sent })).reason,
        'INVALID_SOURCE_IP',
      );
    });

    test(`fragments follow their first one (${family})`, () => {
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 53, 'UDP')]);
      const id = nextPort();
      const fragment = (offset: number, more: boolean, destinationPort: number, number = id) =>
        offset === 0
          ? udpPacket({
              ...ends(a, b, six),
              sourcePort: id,
              destinationPort,
              payload: new Uint8Array(1000),
              fragment: { id: number, offset, more },
            })
          : ipPacket({ ...ends(a, b, six), fragment: { id: number, offset, more } }, 17, new Uint8Array(1000));
      assert.equal(fromPod(bed, a, fragment(1008, true, 53)).reason, 'FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND');
      assert.equal(fromPod(bed, a, fragment(0, true, 53)).outcome, 'sent on');
      assert.equal(fromPod(bed, a, fragment(1008, true, 53)).outcome, 'sent on');
      assert.equal(fromPod(bed, a, fragment(2008, false, 53)).outcome, 'sent on');
      assert.equal(fromPod(bed, a, fragment(0, true, 54, id + 1)).reason, 'POLICY_DENIED');
      assert.equal(fromPod(bed, a, fragment(1008, true, 54, id + 1)).reason, 'POLICY_DENIED');
    });

    test(`messages of DNS that are let through are told, whole or as far as they fit (${family})`, () => {
      bed.setPolicies([allowIngress('to-b', 'b', 'a', 53, 'UDP')]);
      const port = nextPort();
      const payload = Uint8Array.from({ length: 700 }, (_, i) => i);
      const send = (from: BedPod, to: BedPod, sourcePort: number, destinationPort: number, length: number) =>
        fromPod(
          bed,
          from,
          udpPacket({ ...ends(from, to, six), sourcePort, destinationPort, payload: payload.slice(0, length) }),
        );
      const told = (result: ReturnType<typeof send>) =>
        result.dns.map(({ sport, dport, len, payload: got }) => {
          const there = Math.min(512, len);
          return [sport, dport, len, Buffer.compare(got.subarray(0, there), payload.subarray(0, there)) === 0];
        });
      assert.deepEqual(told(send(a, b, port, 53, 40)), [[port, 53, 40, true]]);
      assert.deepEqual(told(send(b, a, 53, port, 700)), [[53, port, 700, true]]);
      assert.deepEqual(told(send(a, b, port, 53, 1)), [[port, 53, 1, true]]);
      assert.deepEqual(told(send(a, b, port, 53, 0)), []);
      assert.deepEqual(told(send(a, c, port, 5353, 40)), []);
      const denied = send(c.node === a.node ? c : b, b, port, 54, 40);
      assert.deepEqual(told(denied), []);
      bed.setPolicies([denyIngress('to-b', 'b')]);
      const cut = send(a, b, port, 53, 40);
      assert.equal(cut.reason, 'POLICY_DENIED');
      assert.deepEqual(told(cut), []);
    });

    test(`of streams to the port of DNS what they carry is told, and not that they are there (${family})`, () => {
      bed.setPolicies([]);
      const port = nextPort();
      const payload = Uint8Array.from({ length: 700 }, (_, i) => i);
      const send = (
        flags: TcpFlag[],
        length: number,
        from = a,
        to = b,
        ports: readonly [number, number] = [port, 53],
      ) =>
        fromPod(
          bed,
          from,
          tcpPacket({
            ...ends(from, to, six),
            sourcePort: ports[0],
            destinationPort: ports[1],
            flags,
            payload: payload.slice(0, length),
          }),
        ).dns.map(({ sport, dport, len, protocol, payload: got }) => {
          const there = Math.min(512, len);
          return [
            sport,
            dport,
            len,
            protocol,
            Buffer.compare(got.subarray(0, there), payload.subarray(0, there)) === 0,
          ];
        });
      assert.deepEqual(send(['SYN'], 0), []);
      assert.deepEqual(send(['SYN', 'ACK'], 0, b, a, [53, port]), []);
      assert.deepEqual(send(['ACK'], 0), []);
      assert.deepEqual(send(['ACK'], 2), []);
      assert.deepEqual(send(['ACK', 'PSH'], 60), [[port, 53, 60, 6, true]]);
      assert.deepEqual(send(['ACK', 'PSH'], 700, b, a, [53, port]), [[53, port, 700, 6, true]]);
      assert.deepEqual(send(['ACK', 'PSH'], 60, a, b, [port, 54]), []);
    });

    test(`packets that contradict themselves are dropped (${family})`, () => {
      bed.setPolicies([]);
      const good = tcp(a, b, six, nextPort(), 80, ['SYN']);
      const cut = good.slice(0, good.length - 12);
      assert.equal(fromPod(bed, a, cut).reason, 'INVALID_PACKET_DROPPED');
      const tooShort = ipPacket({ ...ends(a, b, six) }, 6, new Uint8Array(8));
      assert.equal(fromPod(bed, a, tooShort).reason, 'CT_TRUNCATED_OR_INVALID_HEADER');
      const offset = Uint8Array.from(good);
      offset[six ? 66 : 46] = 0x30;
      assert.equal(fromPod(bed, a, offset).reason, 'CT_TRUNCATED_OR_INVALID_HEADER');
      const version = Uint8Array.from(good);
      version[14] = 0x25;
      assert.equal(fromPod(bed, a, version).reason, 'INVALID_PACKET_DROPPED');
    });

    test(`the node reaches its pods whatever policy says, and nobody else does in its name (${family})`, () => {
      bed.setPolicies([denyIngress('to-a', 'a')]);
      const p = nextPort();
      const own = bed.nodes[0]!;
      const probe = tcpPacket({ from: own, to: a, six, sourcePort: p, destinationPort: 8080, flags: ['SYN'] });
      assert.equal(fromNode(bed, 0, probe).outcome, 'sent on');
      const answer = fromPod(bed, a, tcp(a, own, six, 8080, p, ['SYN', 'ACK']));
      assert.equal(answer.outcome, 'sent on');
      assert.equal(
        fromNode(
          bed,
          0,
          tcpPacket({ from: c, to: a, six, sourcePort: nextPort(), destinationPort: 8080, flags: ['SYN'] }),
        ).reason,
        'POLICY_DENIED',
      );
      assert.equal(
        fromWire(
          bed,
          0,
          tcpPacket({ from: bed.nodes[1]!, to: a, six, sourcePort: nextPort(), destinationPort: 8080, flags: ['SYN'] }),
        ).reason,
        'POLICY_DENIED',
      );
    });

    test(`addresses that no pod can reach are refused (${family})`, () => {
      bed.setPolicies([]);
      for (const to of six ? ['ff02::fb', '::', 'fe80::5'] : ['224.0.0.251', '255.255.255.255', '0.0.0.0']) {
        const result = fromPod(
          bed,
          a,
          udpPacket({ ...ends(a, { ipv4: to, ipv6: to }, six), sourcePort: nextPort(), destinationPort: 5353 }),
        );
        assert.equal(result.reason, 'UNKNOWN_L3_TARGET_ADDRESS', to);
      }
    });

    test(`a staged policy reports and does not enforce (${family})`, () => {
      bed.setPolicies([
        networkPolicy(
          'later',
          { podSelector: { matchLabels: { app: 'b' } }, policyTypes: ['Ingress'] },
          { staged: true },
        ),
      ]);
      const result = fromPod(bed, a, tcp(a, b, six, nextPort(), 80, ['SYN']));
      assert.equal(result.outcome, 'sent on');
      assert.equal(result.events[0]!.flags & 16, 16);
    });
  }

  test('IPv6 extension headers are followed, but not without end, and no routing header with segments left', () => {
    bed.setPolicies([allowIngress('to-b', 'b', 'a', 80)]);
    const base = { ...ends(a, b, true), destinationPort: 80, flags: ['SYN'] as TcpFlag[] };
    const some = [{ type: 0 }, { type: 60, body: new Uint8Array(14) }];
    assert.equal(fromPod(bed, a, tcpPacket({ ...base, sourcePort: nextPort(), extensions: some })).outcome, 'sent on');
    assert.equal(
      fromPod(bed, a, tcpPacket({ ...base, destinationPort: 81, sourcePort: nextPort(), extensions: some })).reason,
      'POLICY_DENIED',
    );
    const many = Array.from({ length: 8 }, () => ({ type: 60 }));
    assert.equal(
      fromPod(bed, a, tcpPacket({ ...base, sourcePort: nextPort(), extensions: many })).reason,
      'INVALID_IPV6_EXTENSION_HEADER',
    );
    const routing = [{ type: 43, body: new Uint8Array([0, 1, 0, 0, 0, 0]) }];
    assert.equal(
      fromPod(bed, a, tcpPacket({ ...base, sourcePort: nextPort(), extensions: routing })).reason,
      'INVALID_IPV6_EXTENSION_HEADER',
    );
  });

  test('IPv4 options do not hide the ports', () => {
    bed.setPolicies([allowIngress('to-b', 'b', 'a', 80)]);
    const base = {
      ...ends(a, b, false),
      sourcePort: nextPort(),
      flags: ['SYN'] as TcpFlag[],
      options: new Uint8Array([1, 1, 1, 1, 1, 1, 1, 0]),
    };
    assert.equal(fromPod(bed, a, tcpPacket({ ...base, destinationPort: 80 })).outcome, 'sent on');
    assert.equal(fromPod(bed, a, tcpPacket({ ...base, destinationPort: 81 })).reason, 'POLICY_DENIED');
  });

  test('a pod asks for its gateway by ARP and NDP and gets the MAC of its node', () => {
    const arp = new Uint8Array(42);
    arp.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0);
    const mac = podMac(a.ifindex)
      .split(':')
      .map((part) => Number.parseInt(part, 16));
    arp.set(mac, 6);
    arp.set([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 244, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 1, 1], 12);
    const answer = fromPod(bed, a, arp);
    assert.equal(answer.outcome, 'sent on');
    assert.equal(answer.data[21], 2);
    assert.equal(macOf(answer.data, 22), podMac(a.ifindex).replace('0a', '0e'));
    arp[41] = 2;
    assert.equal(fromPod(bed, a, arp).outcome, 'dropped', 'nobody else is on the link');

    const target = new Uint8Array(4 + 16);
    target.set([0xfe, 0x80], 4);
    target[19] = 1;
    const solicit = icmpPacket({
      ...ends(a, { ipv4: '0.0.0.0', ipv6: 'ff02::1:ff00:1' }, true),
      ttl: 255,
      type: 135,
      rest: target,
    });
    const advert = fromPod(bed, a, solicit);
    assert.equal(advert.outcome, 'sent on');
    assert.equal(advert.data[54], 136);
    assert.equal(macOf(advert.data, 80), podMac(a.ifindex).replace('0a', '0e'));
    let sum = 0;
    const pseudo = [...advert.data.slice(22, 54), 0, 0, 0, 32, 0, 0, 0, 58, ...advert.data.slice(54, 86)];
    for (let i = 0; i < pseudo.length; i += 2) sum += (pseudo[i]! << 8) | pseudo[i + 1]!;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    assert.equal(sum, 0xffff, 'the checksum of the advertisement is right');
    const redirect = icmpPacket({ ...ends(a, b, true), type: 137, rest: new Uint8Array(36) });
    assert.equal(fromPod(bed, a, redirect).reason, 'FORBIDDEN_ICMPV6_MESSAGE');
  });

  test('a frame that is neither IP nor ARP is dropped with a reason', () => {
    const frame = tcp(a, b, false, nextPort(), 80, ['SYN']);
    frame.set([0x88, 0xcc], 12);
    assert.equal(fromPod(bed, a, frame).reason, 'UNSUPPORTED_L3_PROTOCOL');
  });
});
