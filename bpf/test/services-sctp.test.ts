// SCTP services whose target port differs from their port, and ports of ours: the checksum of the whole packet holds
// afterwards, whatever the packet's length, in tc and in XDP, there and back.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { datapathMaps } from '../../src/kernel/datapath.gen.ts';
import { getLink } from '../../src/kernel/links.ts';
import { setNeighbour } from '../../src/kernel/neighbours.ts';
import { withNetns } from '../../src/kernel/netns.ts';
import { testRun } from '../../src/kernel/test-run.ts';
import { typedMap } from '../../src/kernel/typed-map.ts';
import { type Bed, type BedPod, createBed } from '../../test/bed/bed.ts';
import { icmpErrorPacket, type PacketEnd, type PacketSpec, type PortSpec, sctpPacket } from '../../test/bed/packet.ts';
import { checksumsHold, crc32c, readPacket, withChecksum } from '../../test/bed/read-packet.ts';
import { type BedFrontend, type BedServices, createBedServices, natEnd } from '../../test/bed/services.ts';
import { framedFor, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const families = [
  { name: 'IPv4', six: false, key: 'ipv4' },
  { name: 'IPv6', six: true, key: 'ipv6' },
] as const;
const client: PacketEnd = { ipv4: '10.9.0.200', ipv6: 'fd09::200' };
const second: PacketEnd = { ipv4: '10.9.0.201', ipv6: 'fd09::201' };
let lastPort = 20_000;
const nextPort = () => ++lastPort;

/** Bytes that are no pattern, the same each time. */
function noise(length: number): Uint8Array {
  let state = length + 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}

/** Lengths that have every low digit, and the largest that a device takes. */
const lengths = [...Array.from({ length: 20 }, (_, i) => i), 63, 100, 255, 256, 257, 511, 1000, 1023, 1400];

const sctp = (spec: PacketSpec & PortSpec) => withChecksum(sctpPacket({ chunk: 0, ...spec }));

test('the checksum that these tests hold packets against is CRC32c', () => {
  assert.equal(crc32c(new TextEncoder().encode('123456789')), 0xe3069283);
});

describe('SCTP services on packets', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  const pod = (name: string) => bed.pod(name);
  let frontends = 0;
  function add(backends: readonly BedPod[], more: Partial<BedFrontend> = {}): BedFrontend {
    const number = ++frontends;
    const ends = { ipv4: `192.0.2.${number}`, ipv6: `2001:db8::${number.toString(16)}` };
    const made: BedFrontend = { ...ends, port: 3868, targetPort: 13868, protocol: 'SCTP', backends, ...more };
    services.add(made);
    return made;
  }

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'client', node: 0 },
        { name: 'near', node: 0 },
        { name: 'far', node: 1 },
      ],
    });
    services = createBedServices(bed);
    for (const [index, node] of bed.nodes.entries()) {
      const other = bed.nodes[1 - index]!;
      const mac = getLink(other.netlink, 'eth0')!.mac;
      for (const end of [other, client, second])
        for (const address of [end.ipv4, end.ipv6])
          setNeighbour(node.netlink, { ifindex: node.deviceIfindex, address, mac });
    }
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  const sends = {
    tc: (packet: Uint8Array) => {
      const sent = fromWire(bed, 0, packet);
      assert.deepEqual([sent.outcome, sent.reason], ['sent on', undefined]);
      return sent.data;
    },
    XDP: (packet: Uint8Array) => {
      const node = bed.nodes[0]!;
      const { retval, data } = withNetns(node.netnsFd, () =>
        testRun(services.xdp[0]!.program('balance_xdp').fd, framedFor(node, packet), {
          xdpIfindex: node.deviceIfindex,
        }),
      );
      assert.ok(retval === 3 || retval === 4, `XDP answered ${retval}`);
      return data;
    },
  };

  for (const { name, six, key } of families) {
    test(`a pod reaches a pod behind another port and is answered by the frontend (${name})`, () => {
      const front = add([pod('near')]);
      const port = nextPort();
      for (const length of [...lengths, 3000]) {
        const payload = noise(length);
        const there = fromPod(
          bed,
          pod('client'),
          sctp({
            from: pod('client'),
            to: front,
            six,
            sourceMac: podMac(pod('client').ifindex),
            sourcePort: port,
            destinationPort: 3868,
            payload,
          }),
        );
        assert.deepEqual([there.outcome, there.reason], ['sent on', undefined]);
        const seen = readPacket(there.data);
        assert.deepEqual([seen.destination, seen.sourcePort, seen.destinationPort], [pod('near')[key], port, 13868]);
        assert.deepEqual(seen.body.slice(16), payload);
        assert.ok(checksumsHold(there.data), `${length} bytes there`);
        const back = fromPod(
          bed,
          pod('near'),
          sctp({
            from: pod('near'),
            to: pod('client'),
            six,
            sourceMac: podMac(pod('near').ifindex),
            sourcePort: 13868,
            destinationPort: port,
            payload,
          }),
        );
        assert.deepEqual([back.outcome, back.reason], ['sent on', undefined]);
        assert.deepEqual([readPacket(back.data).source, readPacket(back.data).sourcePort], [front[key], 3868]);
        assert.ok(checksumsHold(back.data), `${length} bytes back`);
      }
    });

    test(`padding behind a short packet is none of it (${name})`, () => {
      const front = add([pod('near')]);
      const packet = sctp({ from: client, to: front, six, sourcePort: nextPort(), destinationPort: 3868 });
      const padded = new Uint8Array(packet.length + 40).fill(0x5a);
      padded.set(packet);
      const sent = sends.tc(padded);
      assert.equal(readPacket(sent).destinationPort, 13868);
      assert.ok(checksumsHold(sent));
    });

    test(`a checksum that the device is to make stays for it to make (${name})`, () => {
      for (const backend of ['near', 'far']) {
        const front = add([pod(backend)]);
        const ends = { from: client, to: front, six, sourcePort: nextPort(), destinationPort: 3868 };
        const blank = sctpPacket({ chunk: 0, ...ends, payload: noise(40) });
        for (const hook of ['tc', 'XDP'] as const) {
          if (hook === 'XDP' && backend === 'near') continue;
          const seen = readPacket(sends[hook](blank));
          assert.equal(seen.destinationPort, 13868);
          assert.deepEqual(seen.body.slice(8, 12), new Uint8Array(4), hook);
        }
      }
    });

    for (const hook of ['tc', 'XDP'] as const) {
      test(`a client outside keeps its port, the next with the same one gets another, in ${hook} (${name})`, () => {
        const front = add([pod('far')]);
        const port = nextPort();
        const ports = [client, second].map((from) => {
          const ends = { from, to: front, six, sourcePort: port, destinationPort: 3868 };
          sends.tc(sctp({ ...ends, payload: noise(4) })); // finds out the way, so that XDP knows it
          const used = lengths.map((length) => {
            const payload = noise(length);
            const data = sends[hook](sctp({ ...ends, payload }));
            const seen = readPacket(data);
            assert.deepEqual(
              [seen.source, seen.destination, seen.destinationPort, seen.ttl],
              [natEnd(0)[key], pod('far')[key], 13868, 63],
            );
            assert.ok(checksumsHold(data), `${length} bytes there`);
            const answer = sctp({
              from: pod('far'),
              to: natEnd(0),
              six,
              sourcePort: 13868,
              destinationPort: seen.sourcePort,
              payload,
            });
            sends.tc(answer);
            const back = sends[hook](answer);
            const returned = readPacket(back);
            assert.deepEqual(
              [returned.source, returned.sourcePort, returned.destination, returned.destinationPort],
              [front[key], 3868, from[key], port],
            );
            assert.deepEqual(returned.body.slice(16), payload);
            assert.ok(checksumsHold(back), `${length} bytes back`);
            return seen.sourcePort;
          });
          assert.equal(new Set(used).size, 1, 'one port for one connection');
          return used[0]!;
        });
        assert.equal(ports[0], port);
        assert.notEqual(ports[1], port);
      });

      test(`with direct return the packet goes to the target port, and the frontend answers, in ${hook} (${name})`, () => {
        const front = add([pod('far')], { directReturn: true });
        const port = nextPort();
        const ends = { from: client, to: front, six, sourcePort: port, destinationPort: 3868 };
        const opening = sends.tc(sctp({ ...ends, payload: noise(7) }));
        assert.ok(readPacket(opening).options.length > 0, 'an option');
        assert.ok(checksumsHold(opening));
        assert.equal(fromWire(bed, 1, opening).outcome, 'sent on');
        for (const length of lengths) {
          const payload = noise(length);
          const data = sends[hook](sctp({ ...ends, payload }));
          const seen = readPacket(data);
          assert.deepEqual(
            [seen.source, seen.destination, seen.destinationPort],
            [client[key], pod('far')[key], 13868],
          );
          assert.ok(checksumsHold(data), `${length} bytes there`);
          const back = fromPod(
            bed,
            pod('far'),
            sctp({
              from: pod('far'),
              to: client,
              six,
              sourceMac: podMac(pod('far').ifindex),
              sourcePort: 13868,
              destinationPort: port,
              payload,
            }),
          );
          assert.deepEqual([readPacket(back.data).source, readPacket(back.data).sourcePort], [front[key], 3868]);
          assert.ok(checksumsHold(back.data), `${length} bytes back`);
        }
      });
    }

    test(`packets as long as devices with large frames have them keep their checksum (${name})`, () => {
      const front = add([pod('far')]);
      const port = nextPort();
      const ends = { from: client, to: front, six, sourcePort: port, destinationPort: 3868 };
      sends.tc(sctp(ends));
      sends.XDP(sctp(ends));
      // What XDP found out stays for a second: without the device's limit.
      const flows = typedMap(bed.nodes[0]!.datapath!.map('service_flows'), datapathMaps.service_flows);
      for (const { key: at, value } of flows.entries())
        if (at.sport === port) flows.update(at, { ...value, way: { ...value.way, mtu: 0 } });
      for (const length of [4095, 4096, 9000, 20_000, 40_000, 61_000]) {
        const data = sends.XDP(sctp({ ...ends, payload: noise(length) }));
        assert.equal(readPacket(data).destinationPort, 13868);
        assert.ok(checksumsHold(data), `${length} bytes`);
      }
    });

    test(`fragments get through where the ports stay, and are dropped with the reason where one would change (${name})`, () => {
      const [same, other] = [add([pod('far')], { targetPort: 3868 }), add([pod('far')])];
      const part = (to: PacketEnd, id: number, offset: number) =>
        sctpPacket({
          from: client,
          to,
          six,
          sourcePort: id,
          destinationPort: 3868,
          payload: new Uint8Array(16),
          fragment: { id, offset, more: offset === 0 },
        });
      for (const [to, expected] of [
        [same, ['sent on', undefined]],
        [other, ['dropped', 'UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE']],
      ] as const) {
        const port = nextPort();
        for (const offset of [0, 32]) {
          const sent = fromWire(bed, 0, part(to, port, offset));
          assert.deepEqual([sent.outcome, sent.reason], expected);
          if (sent.outcome === 'sent on') assert.equal(readPacket(sent.data).destination, pod('far')[key]);
        }
      }
    });

    test(`an ICMP error about a translated packet tells the client of its own, about an answer the backend of its (${name})`, () => {
      const front = add([pod('far')]);
      const ends = { from: client, to: front, six, sourcePort: nextPort(), destinationPort: 3868 };
      // The second client of a port is translated at both ends.
      sends.tc(sctp(ends));
      const translated = sends.tc(sctp({ ...ends, from: second, payload: noise(200) }));
      const complain = (about: Uint8Array, to: PacketEnd) =>
        sends.tc(
          withChecksum(icmpErrorPacket({ from: bed.nodes[1]!, to, six, type: six ? 2 : 3, code: six ? 0 : 4, about })),
        );
      const at = six ? 14 + 40 + 8 : 14 + 20 + 8;
      const toClient = complain(translated, natEnd(0));
      assert.equal(readPacket(toClient).destination, second[key]);
      const spoken = readPacket(toClient, at);
      assert.deepEqual(
        [spoken.source, spoken.sourcePort, spoken.destination, spoken.destinationPort],
        [second[key], ends.sourcePort, front[key], 3868],
      );
      assert.ok(checksumsHold(toClient));
      const answer = sctp({
        from: front,
        to: second,
        six,
        sourcePort: 3868,
        destinationPort: ends.sourcePort,
        payload: noise(200),
      });
      const toBackend = complain(answer, front);
      assert.equal(readPacket(toBackend).destination, pod('far')[key]);
      const about = readPacket(toBackend, at);
      assert.deepEqual(
        [about.source, about.sourcePort, about.destination, about.destinationPort],
        [pod('far')[key], 13868, natEnd(0)[key], readPacket(translated).sourcePort],
      );
      assert.ok(checksumsHold(toBackend));
    });
  }
});
