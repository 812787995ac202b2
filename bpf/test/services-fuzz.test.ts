// Hostile packets against the balancer: whatever comes, XDP only lets pass or sends on what is for a frontend or answers a
// translated connection, and tc answers nobody who did not ask.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { getLink, macBytes } from '../../src/kernel/links.ts';
import { setNeighbour } from '../../src/kernel/neighbours.ts';
import { withNetns } from '../../src/kernel/netns.ts';
import { testRun } from '../../src/kernel/test-run.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { icmpErrorPacket, ipPacket, sctpPacket, tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { readPacket } from '../../test/bed/read-packet.ts';
import { type BedServices, createBedServices, natEnd } from '../../test/bed/services.ts';
import { fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const rounds = Number(process.env.WEIR_FUZZ_PACKETS ?? 1_500);
const client = { ipv4: '10.9.0.200', ipv6: 'fd09::200' };
const fronts = [
  { ipv4: '192.0.2.1', ipv6: '2001:db8::1', port: 80, targetPort: 8080, directReturn: false },
  { ipv4: '192.0.2.2', ipv6: '2001:db8::2', port: 80, targetPort: 8080, directReturn: true },
] as const;

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const tunnel of [false, true]) {
  describe(`balancer under hostile packets, direct return by ${tunnel ? 'tunnel' : 'option'}`, { skip }, () => {
    let bed: Bed;
    let services: BedServices;
    before(async () => {
      bed = await createBed({
        pods: [
          { name: 'near', node: 0 },
          { name: 'far', node: 1 },
        ],
        constants: { drop_reports_per_second: 1_000_000 },
      });
      services = createBedServices(bed, { tunnel });
      for (const front of fronts) services.add({ ...front, backends: [bed.pod('far'), bed.pod('near')] });
      services.add({ ...fronts[0], port: 53, protocol: 'UDP', backends: [bed.pod('far')] });
      const [here, there] = [bed.nodes[0]!, bed.nodes[1]!];
      const mac = getLink(there.netlink, 'eth0')!.mac;
      for (const end of [there, client])
        for (const address of [end.ipv4, end.ipv6])
          setNeighbour(here.netlink, { ifindex: here.deviceIfindex, address, mac });
    });
    after(() => {
      services?.close();
      bed?.close();
    });

    function goodPackets(): Uint8Array[] {
      return [false, true].flatMap((six) => {
        const to = (i: 0 | 1) => ({ from: client, to: fronts[i], six });
        const request = tcpPacket({ ...to(0), sourcePort: 4000, destinationPort: 80, flags: ['SYN'] });
        return [
          request,
          tcpPacket({ ...to(1), sourcePort: 4001, destinationPort: 80, flags: ['SYN'] }),
          tcpPacket({ ...to(1), sourcePort: 4001, destinationPort: 80, flags: ['ACK', 'FIN'] }),
          udpPacket({ ...to(0), sourcePort: 4002, destinationPort: 53, payload: new Uint8Array(40) }),
          sctpPacket({ ...to(0), sourcePort: 4003, destinationPort: 80 }),
          tcpPacket({
            from: bed.pod('far'),
            to: natEnd(0),
            six,
            sourcePort: 8080,
            destinationPort: 5000,
            flags: ['ACK'],
          }),
          icmpErrorPacket({ from: client, to: fronts[0], six, type: six ? 2 : 3, code: six ? 0 : 4, about: request }),
          ipPacket({ from: bed.nodes[1]!, to: bed.pod('near'), six }, six ? 41 : 4, request.slice(14)),
          fromWire(bed, 0, request).data,
        ];
      });
    }

    function isBalanced(frame: Uint8Array): boolean {
      const seen = readPacket(frame);
      const ours = [...fronts, natEnd(0)].flatMap((end) => [end.ipv4, end.ipv6]);
      return ours.includes(seen.destination);
    }

    test('mutated and random packets are let pass, or were for a frontend', () => {
      const next = random(tunnel ? 11 : 7);
      const good = goodPackets();
      const node = bed.nodes[0]!;
      const programFd = services.xdp[0]!.program('balance_xdp').fd;
      const seen = { pass: 0, sent: 0 };
      for (let i = 0; i < rounds; i++) {
        let frame = Uint8Array.from(good[next(good.length)]!);
        frame.set(macBytes(node.deviceMac));
        if (i % 4 === 0) frame = frame.map((byte, at) => (at < 14 ? byte : next(256)));
        for (let changes = next(4); changes > 0; changes--) frame[14 + next(frame.length - 14)] = next(256);
        if (next(3) === 0) frame = frame.slice(0, Math.max(14, next(frame.length)));
        const { retval, data } = withNetns(node.netnsFd, () =>
          testRun(programFd, frame, { xdpIfindex: node.deviceIfindex }),
        );
        assert.ok(retval === 2 || retval === 3 || retval === 4, `XDP answered ${retval}`);
        if (retval === 2) {
          seen.pass++;
          assert.deepEqual(Buffer.compare(data, frame), 0, 'what passes is as it was');
        } else {
          seen.sent++;
          assert.ok(isBalanced(frame), `sent on: ${Buffer.from(frame).toString('hex')}`);
        }
        if (frame.length >= 54) fromWire(bed, 0, frame); // the kernel makes no socket buffer of less
      }
      assert.ok(seen.pass > rounds / 10 && seen.sent > rounds / 50, JSON.stringify(seen));
    });
  });
}
