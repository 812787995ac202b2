// Hostile packets: random bytes and mutated good ones through the real programs. They must always answer, and whatever
// they send on must have been sayable by its sender and allowed by policy.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { parseAddress } from '../../src/core/ip.ts';
import { macBytes } from '../../src/kernel/links.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { echoPacket, icmpErrorPacket, sctpPacket, tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { allowIngress, denyIngress } from './policy-lines.ts';
import { counter, fromNode, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const rounds = Number(process.env.WEIR_FUZZ_PACKETS ?? 4_000);

function bytesOf(address: string): Uint8Array {
  const parsed = parseAddress(address);
  if (!parsed.ok) throw new TypeError(parsed.reason);
  return parsed.value.bytes;
}

/** A small generator with a seed, so that a failure can be repeated. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('datapath under hostile packets', { skip }, () => {
  let bed: Bed;
  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'c', node: 1 },
      ],
      constants: { drop_reports_per_second: 1_000_000 },
    });
    bed.setPolicies([allowIngress('to-b', 'b', 'a', 80), denyIngress('to-a', 'a')]);
  });
  after(() => bed?.close());

  function goodPackets(): Uint8Array[] {
    const [a, b, c] = [bed.pod('a'), bed.pod('b'), bed.pod('c')];
    const sourceMac = podMac(a.ifindex);
    return [false, true].flatMap((six) => {
      const ends = { from: a, to: b, six, sourceMac };
      const udp = udpPacket({ ...ends, to: c, sourcePort: 7, destinationPort: 9, payload: new Uint8Array(64) });
      return [
        tcpPacket({ ...ends, sourcePort: 1000, destinationPort: 80, flags: ['SYN'] }),
        tcpPacket({
          ...ends,
          sourcePort: 1001,
          destinationPort: 80,
          flags: ['ACK', 'FIN'],
          payload: new Uint8Array(40),
        }),
        udp,
        udpPacket({
          ...ends,
          sourcePort: 7,
          destinationPort: 9,
          payload: new Uint8Array(200),
          fragment: { id: 3, offset: 0, more: true },
        }),
        sctpPacket({ ...ends, sourcePort: 7, destinationPort: 9 }),
        echoPacket({ ...ends, id: 5 }),
        icmpErrorPacket({ ...ends, type: six ? 1 : 3, about: udp }),
        tcpPacket({
          ...ends,
          sourcePort: 1002,
          destinationPort: 80,
          flags: ['SYN'],
          ...(six ? { extensions: [{ type: 0 }, { type: 60 }, { type: 51 }] } : { options: new Uint8Array(12) }),
        }),
      ];
    });
  }

  /** Whether a frame, as it left the program towards pod b, is one that pod a may send there. */
  function mayReachB(frame: Uint8Array): boolean {
    const [a, b] = [bed.pod('a'), bed.pod('b')];
    const target = frame.slice(0, 6).join() === macBytes(podMac(b.ifindex)).join();
    if (!target) return true;
    const type = (frame[12]! << 8) | frame[13]!;
    const text = (bytes: Uint8Array) => bytes.join();
    if (type === 0x0800) return text(frame.slice(26, 30)) === a.ipv4.split('.').join();
    return type === 0x86dd && text(frame.slice(22, 38)) === text(bytesOf(a.ipv6));
  }

  test('mutated packets of a pod never pass for somebody else’s', () => {
    const next = random(42);
    const good = goodPackets();
    const a = bed.pod('a');
    const seen = new Map<string, number>();
    for (let i = 0; i < rounds; i++) {
      let packet = Uint8Array.from(good[next(good.length)]!);
      for (let flips = next(6); flips >= 0; flips--) packet[14 + next(packet.length - 14)] = next(256);
      // A test run refuses frames that end within the IP header, before the program sees them.
      const least = packet[12] === 0x86 && packet[13] === 0xdd ? 54 : 34;
      if (next(4) === 0 && packet.length > 54) packet = packet.slice(0, least + next(packet.length - least));
      const result = fromPod(bed, a, packet);
      const key = result.reason ?? result.outcome;
      seen.set(key, (seen.get(key) ?? 0) + 1);
      if (result.outcome === 'sent on')
        assert.ok(mayReachB(result.data), `packet ${i}: ${Buffer.from(packet).toString('hex')}`);
      assert.notEqual(
        result.outcome,
        'left to the kernel',
        `packet ${i} reached the node's stack: ${Buffer.from(packet).toString('hex')}`,
      );
    }
    assert.ok(seen.size > 5, `only ${[...seen.keys()]} were reached`);
  });

  test('random bytes are answered on every hook, and none reaches a pod', () => {
    const next = random(7);
    const sent = () => counter(bed.nodes[0]!, 'COUNTER_FORWARDED') + counter(bed.nodes[0]!, 'COUNTER_CT_CREATED');
    const before = sent();
    for (let i = 0; i < rounds; i++) {
      const packet = Uint8Array.from({ length: 54 + next(80) }, () => next(256));
      const type = [0x0800, 0x86dd, 0x0806, next(65_536)][next(4)]!;
      packet[12] = type >> 8;
      packet[13] = type & 255;
      if (next(2) === 0) packet.set(macBytes(podMac(bed.pod('a').ifindex)), 6);
      [() => fromPod(bed, bed.pod('a'), packet), () => fromWire(bed, 0, packet), () => fromNode(bed, 0, packet)][
        next(3)
      ]!();
    }
    assert.equal(sent(), before);
  });
});
