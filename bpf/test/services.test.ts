// Services on packets: what pods send to frontends, what comes from outside for pods of this node and of others, and the
// way back, each in every mode and family, in tc and in XDP.
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
import { icmpErrorPacket, ipPacket, type PacketEnd, tcpPacket, udpPacket } from '../../test/bed/packet.ts';
import { checksumsHold, readPacket, withChecksum } from '../../test/bed/read-packet.ts';
import { type BedFrontend, type BedServices, createBedServices, natEnd } from '../../test/bed/services.ts';
import { denyIngress } from './policy-lines.ts';
import { asFramed, counter, framedFor, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const families = [
  { name: 'IPv4', six: false, key: 'ipv4' },
  { name: 'IPv6', six: true, key: 'ipv6' },
] as const;

const client: PacketEnd = { ipv4: '10.9.0.200', ipv6: 'fd09::200' };
const stranger: PacketEnd = { ipv4: '10.9.0.201', ipv6: 'fd09::201' };
let lastPort = 20_000;
const nextPort = () => ++lastPort;

/** A frontend with an address of its own. */
let frontends = 0;
function frontend(backends: readonly BedPod[], more: Partial<BedFrontend> = {}): BedFrontend {
  const number = ++frontends;
  return {
    ipv4: `192.0.2.${number}`,
    ipv6: `2001:db8::${number.toString(16)}`,
    port: 80,
    targetPort: 8080,
    backends,
    ...more,
  };
}

function syn(...[from, to, six, sourcePort, destinationPort, mac]: SegmentEnds): Uint8Array {
  return segment('SYN', [from, to, six, sourcePort, destinationPort, mac]);
}

type SegmentEnds = [
  from: PacketEnd,
  to: PacketEnd,
  six: boolean,
  sourcePort: number,
  destinationPort: number,
  mac?: string | undefined,
];

function segment(flag: 'SYN' | 'ACK', [from, to, six, sourcePort, destinationPort, mac]: SegmentEnds): Uint8Array {
  const mine = mac === undefined ? {} : { sourceMac: mac };
  return withChecksum(tcpPacket({ from, to, six, sourcePort, destinationPort, flags: [flag], ...mine }));
}

describe('services on packets', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  const pod = (name: string) => bed.pod(name);
  const added: BedFrontend[] = [];
  const add = (made: BedFrontend) => {
    services.add(made);
    added.push(made);
    return made;
  };

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'client', node: 0 },
        { name: 'near', node: 0 },
        { name: 'far', node: 1 },
      ],
    });
    services = createBedServices(bed);
    // XDP leaves packets whose next hop nobody knows yet to tc: here both know each other, and the client.
    for (const [index, node] of bed.nodes.entries()) {
      const other = bed.nodes[1 - index]!;
      const mac = getLink(other.netlink, 'eth0')!.mac;
      for (const end of [other, client])
        for (const address of [end.ipv4, end.ipv6])
          setNeighbour(node.netlink, { ifindex: node.deviceIfindex, address, mac });
    }
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  /** The same packet through the balancer in XDP. */
  function throughXdp(node: number, packet: Uint8Array): { action: 'pass' | 'sent' | 'dropped'; data: Uint8Array } {
    const { retval, data } = withNetns(bed.nodes[node]!.netnsFd, () =>
      testRun(services.xdp[node]!.program('balance_xdp').fd, framedFor(bed.nodes[node]!, packet), {
        xdpIfindex: bed.nodes[node]!.deviceIfindex,
      }),
    );
    const action = ({ 1: 'dropped', 2: 'pass', 3: 'sent', 4: 'sent' } as const)[retval];
    assert.ok(action !== undefined, `XDP answered ${retval}`);
    return { action, data };
  }

  for (const { name, six, key } of families) {
    test(`a pod's packet to a frontend goes to a backend, and the answer comes from the frontend (${name})`, () => {
      const front = add(frontend([pod('near')]));
      const port = nextPort();
      const sent = fromPod(bed, pod('client'), syn(pod('client'), front, six, port, 80, podMac(pod('client').ifindex)));
      assertSentOn(sent);
      const forward = readPacket(sent.data);
      assert.deepEqual([forward.destination, forward.destinationPort], [pod('near')[key], 8080]);
      assert.ok(checksumsHold(sent.data), 'checksums of the packet');
      assert.ok(
        sent.events.some((event) => event.type === 1 && event.service > 0),
        'the event names the frontend',
      );

      const answer = withChecksum(
        tcpPacket({
          from: pod('near'),
          to: pod('client'),
          six,
          sourceMac: podMac(pod('near').ifindex),
          sourcePort: 8080,
          destinationPort: port,
          flags: ['SYN', 'ACK'],
        }),
      );
      const back = fromPod(bed, pod('near'), answer);
      assertSentOn(back);
      const seen = readPacket(back.data);
      assert.deepEqual([seen.source, seen.sourcePort], [front[key], 80]);
      assert.deepEqual([seen.destination, seen.destinationPort], [pod('client')[key], port]);
      assert.ok(checksumsHold(back.data), 'checksums of the answer');
    });

    test(`a connection keeps its backend when others come, and packets find it (${name})`, () => {
      const front = add(frontend([pod('near')]));
      const port = nextPort();
      const mac = podMac(pod('client').ifindex);
      fromPod(bed, pod('client'), syn(pod('client'), front, six, port, 80, mac));
      services.add({ ...front, backends: [pod('near'), pod('far')] });
      for (let i = 0; i < 5; i++) {
        const packet = withChecksum(
          tcpPacket({
            from: pod('client'),
            to: front,
            six,
            sourceMac: mac,
            sourcePort: port,
            destinationPort: 80,
            flags: ['ACK'],
          }),
        );
        const sent = fromPod(bed, pod('client'), packet);
        assertSentOn(sent);
        assert.equal(readPacket(sent.data).destination, pod('near')[key]);
      }
    });

    test(`a pod that reaches itself sees its gateway as the client (${name})`, () => {
      const front = add(frontend([pod('client')]));
      const port = nextPort();
      const mac = podMac(pod('client').ifindex);
      const sent = fromPod(bed, pod('client'), syn(pod('client'), front, six, port, 80, mac));
      assertSentOn(sent);
      const seen = readPacket(sent.data);
      const gateway = six ? 'fe80::1' : '169.254.1.1';
      assert.deepEqual([seen.source, seen.destination], [gateway, pod('client')[key]]);
      assert.ok(checksumsHold(sent.data));
      const answer = withChecksum(
        tcpPacket({
          from: pod('client'),
          to: { ipv4: '169.254.1.1', ipv6: 'fe80::1' },
          six,
          sourceMac: mac,
          sourcePort: 8080,
          destinationPort: port,
          flags: ['SYN', 'ACK'],
        }),
      );
      const back = fromPod(bed, pod('client'), answer);
      assertSentOn(back);
      const answered = readPacket(back.data);
      assert.deepEqual([answered.source, answered.destination], [front[key], pod('client')[key]]);
      assert.ok(checksumsHold(back.data));
    });

    test(`a connection is counted once for its backend: a pod's, and those from outside, here and elsewhere (${name})`, () => {
      const near = add(frontend([pod('near')]));
      const far = add(frontend([pod('far')]));
      const count = (front: BedFrontend) => {
        const target = services.targets[0]!;
        const address = six ? `[${front.ipv6}]` : front.ipv4;
        return target.connections(target.get(`outside ${address}:80/TCP`)!.backends[0]!);
      };
      /** How many more there are after openings, and what follows them, came three times each. */
      const counted = (front: BedFrontend, from: PacketEnd, send: (packet: Uint8Array) => void, mac?: string) => {
        const before = count(front);
        const port = nextPort();
        for (const flag of ['SYN', 'ACK'] as const) {
          for (let i = 0; i < 3; i++) send(segment(flag, [from, front, six, port, 80, mac]));
        }
        return count(front) - before;
      };
      const mac = podMac(pod('client').ifindex);
      const ofPod = (packet: Uint8Array) => void fromPod(bed, pod('client'), packet);
      assert.equal(counted(near, pod('client'), ofPod, mac), 1, 'a pod');
      const fromOutside = (packet: Uint8Array) => void fromWire(bed, 0, packet);
      assert.equal(counted(near, client, fromOutside), 1, 'from outside to a pod of this node');
      assert.equal(counted(far, client, fromOutside), 1, 'to another node');
      const inXdp = (packet: Uint8Array) => assert.equal(throughXdp(0, packet).action, 'sent');
      assert.equal(counted(far, client, inXdp), 1, 'to another node, in XDP');
    });

    test(`a frontend without backends refuses at once, from pods and from outside, and says which (${name})`, () => {
      const front = add(frontend([]));
      const mac = podMac(pod('client').ifindex);
      const inside = fromPod(bed, pod('client'), syn(pod('client'), front, six, nextPort(), 80, mac));
      const outside = fromWire(bed, 0, syn(client, front, six, nextPort(), 80));
      for (const [who, result, sender] of [
        ['pod', inside, pod('client')],
        ['outside', outside, client],
      ] as const) {
        assert.equal(result.outcome, 'sent on', who);
        assert.equal(result.reason, 'SERVICE_BACKEND_NOT_FOUND', who);
        assert.ok(
          result.events.some((event) => event.service > 0),
          who,
        );
        const seen = readPacket(result.data);
        assert.deepEqual([seen.source, seen.destination], [front[key], sender[key]], who);
        assert.deepEqual([seen.protocol, ...seen.body.slice(0, 2)], six ? [58, 1, 4] : [1, 3, 3], who);
        assert.ok(checksumsHold(result.data), who);
      }
    });

    test(`an empty datagram to a frontend without backends is refused as well (${name})`, () => {
      const front = add(frontend([], { protocol: 'UDP' }));
      const ends = { to: front, six, sourcePort: nextPort(), destinationPort: 80 };
      const mac = podMac(pod('client').ifindex);
      for (const [sender, result] of [
        [pod('client'), fromPod(bed, pod('client'), udpPacket({ ...ends, from: pod('client'), sourceMac: mac }))],
        [client, fromWire(bed, 0, udpPacket({ ...ends, from: client }))],
      ] as const) {
        assert.deepEqual([result.outcome, result.reason], ['sent on', 'SERVICE_BACKEND_NOT_FOUND']);
        const seen = readPacket(result.data);
        assert.deepEqual([seen.source, seen.destination, seen.protocol], [front[key], sender[key], six ? 58 : 1]);
        assert.ok(checksumsHold(result.data));
        const inner = readPacket(seen.body, 8);
        assert.deepEqual([inner.destination, inner.destinationPort], [front[key], 80]);
      }
    });

    test(`a client outside reaches a pod of this node, keeps its address and gets its answer from the frontend (${name})`, () => {
      const front = add(frontend([pod('near')]));
      const port = nextPort();
      const sent = fromWire(bed, 0, syn(client, front, six, port, 80));
      assertSentOn(sent);
      const seen = readPacket(sent.data);
      assert.deepEqual([seen.source, seen.destination, seen.destinationPort], [client[key], pod('near')[key], 8080]);
      assert.ok(checksumsHold(sent.data));
      const answer = withChecksum(
        tcpPacket({
          from: pod('near'),
          to: client,
          six,
          sourceMac: podMac(pod('near').ifindex),
          sourcePort: 8080,
          destinationPort: port,
          flags: ['SYN', 'ACK'],
        }),
      );
      const back = fromPod(bed, pod('near'), answer);
      assertSentOn(back);
      assert.deepEqual([readPacket(back.data).source, readPacket(back.data).sourcePort], [front[key], 80]);
      assert.ok(checksumsHold(back.data));
    });

    test(`source ranges admit and refuse (${name})`, () => {
      const front = add(frontend([pod('near')], { sourceRanges: ['10.9.0.200/32', 'fd09::200/128'] }));
      assert.equal(fromWire(bed, 0, syn(client, front, six, nextPort(), 80)).outcome, 'sent on');
      const refused = fromWire(bed, 0, syn(stranger, front, six, nextPort(), 80));
      assert.deepEqual([refused.outcome, refused.reason], ['dropped', 'DENIED_BY_LB_SRC_RANGE_CHECK']);
    });

    for (const hook of ['tc', 'XDP'] as const) {
      test(`a backend elsewhere is reached behind an address of this node, and its answer returns, in ${hook} (${name})`, () => {
        const front = add(frontend([pod('far')]));
        const port = nextPort();
        const balanced = counter(bed.nodes[0]!, 'COUNTER_BALANCED');
        const packet = syn(client, front, six, port, 80);
        fromWire(bed, 0, packet); // finds out the way, so that XDP knows it
        let data: Uint8Array;
        if (hook === 'tc') {
          const sent = fromWire(bed, 0, packet);
          assertSentOn(sent);
          data = sent.data;
        } else {
          const sent = throughXdp(0, packet);
          assert.equal(sent.action, 'sent');
          data = sent.data;
        }
        const seen = readPacket(data);
        assert.deepEqual(
          [seen.source, seen.destination, seen.destinationPort],
          [natEnd(0)[key], pod('far')[key], 8080],
        );
        assert.equal(seen.ttl, 63);
        assert.ok(checksumsHold(data), 'checksums on the way there');
        assert.ok(counter(bed.nodes[0]!, 'COUNTER_BALANCED') > balanced);

        const arrived = fromWire(bed, 1, data);
        assertSentOn(arrived);
        const answer = withChecksum(
          tcpPacket({
            from: pod('far'),
            to: natEnd(0),
            six,
            sourcePort: 8080,
            destinationPort: seen.sourcePort,
            flags: ['SYN', 'ACK'],
          }),
        );
        const back = fromWire(bed, 0, answer);
        assertSentOn(back);
        const returned = readPacket(back.data);
        assert.deepEqual([returned.source, returned.sourcePort], [front[key], 80]);
        assert.deepEqual([returned.destination, returned.destinationPort], [client[key], port]);
        assert.ok(checksumsHold(back.data), 'checksums on the way back');
      });

      test(`with direct return the packet names the frontend, and the backend's node answers for it, in ${hook} (${name})`, () => {
        const front = add(frontend([pod('far')], { directReturn: true }));
        const port = nextPort();
        const packet = syn(client, front, six, port, 80);
        fromWire(bed, 0, packet);
        const sent = hook === 'tc' ? fromWire(bed, 0, packet) : throughXdp(0, packet);
        if ('action' in sent) assert.equal(sent.action, 'sent');
        const seen = readPacket(sent.data);
        assert.deepEqual([seen.source, seen.destination, seen.destinationPort], [client[key], pod('far')[key], 8080]);
        assert.ok(seen.options.length > 0, 'an option');
        assert.ok(checksumsHold(sent.data), 'checksums');

        const arrived = fromWire(bed, 1, sent.data);
        assertSentOn(arrived);
        const answer = withChecksum(
          tcpPacket({
            from: pod('far'),
            to: client,
            six,
            sourceMac: podMac(pod('far').ifindex),
            sourcePort: 8080,
            destinationPort: port,
            flags: ['SYN', 'ACK'],
          }),
        );
        const back = fromPod(bed, pod('far'), answer);
        assertSentOn(back);
        assert.deepEqual([readPacket(back.data).source, readPacket(back.data).sourcePort], [front[key], 80]);

        // Nobody is believed who names a service that this pod is no backend of.
        const other = add(frontend([pod('near')], { directReturn: true }));
        const forged = Uint8Array.from(sent.data);
        const at = six ? 14 + 40 + 6 : 14 + 20 + 4;
        forged.set(readPacket(syn(other, other, six, 1, 1)).source === other[key] ? bytesOf(other, six) : [], at);
        const view = new DataView(forged.buffer);
        view.setUint16(six ? 14 + 40 + 24 : 14 + 28, nextPort());
        const refused = fromWire(bed, 1, forged);
        assert.deepEqual([refused.outcome, refused.reason], ['dropped', 'DIRECT_RETURN_NOT_BELIEVED']);
      });
    }

    for (const hook of ['tc', 'XDP'] as const) {
      test(`with direct return a quiet connection that the backend's node forgot goes on, in ${hook} (${name})`, () => {
        const front = add(frontend([pod('far')], { directReturn: true }));
        const port = nextPort();
        const ack = withChecksum(
          tcpPacket({ from: client, to: front, six, sourcePort: port, destinationPort: 80, flags: ['ACK'] }),
        );
        fromWire(bed, 1, fromWire(bed, 0, syn(client, front, six, port, 80)).data);
        const send = () => (hook === 'tc' ? fromWire(bed, 0, ack) : throughXdp(0, ack)).data;
        for (const _ of [1, 2]) send(); // finds out the way
        assert.equal(readPacket(send()).options.length, 0, 'a busy one says it now and then');
        const flows = typedMap(bed.nodes[0]!.datapath!.map('service_flows'), datapathMaps.service_flows);
        for (const { key: at, value } of flows.entries())
          if (at.sport === port)
            flows.update(at, { ...value, way: { ...value.way, checked: value.way.checked - 2000 } });
        for (const table of ['ct4', 'ct6'] as const) {
          const map = bed.nodes[1]!.datapath!.map(table);
          for (const entry of map.entries()) map.delete(entry.key);
        }
        const data = send();
        assert.ok(readPacket(data).options.length > 0, 'names the frontend');
        assert.ok(checksumsHold(data));
        assertSentOn(fromWire(bed, 1, data));
        const answer = withChecksum(
          tcpPacket({
            from: pod('far'),
            to: client,
            six,
            sourceMac: podMac(pod('far').ifindex),
            sourcePort: 8080,
            destinationPort: port,
            flags: ['ACK'],
          }),
        );
        const back = fromPod(bed, pod('far'), answer);
        assertSentOn(back);
        assert.deepEqual([readPacket(back.data).source, readPacket(back.data).sourcePort], [front[key], 80]);
      });
    }

    test(`frames for others are left alone, in tc and XDP (${name})`, () => {
      const front = add(frontend([pod('far')]));
      const flag = (port: number, flags: ('SYN' | 'ACK')[], to: PacketEnd) =>
        withChecksum(
          tcpPacket({
            from: client,
            to,
            six,
            sourcePort: port,
            destinationPort: 80,
            flags,
            destinationMac: '02:00:00:00:00:77',
          }),
        );
      const port = nextPort();
      for (const node of [0, 0]) fromWire(bed, node, syn(client, front, six, port, 80)); // finds out the way
      const balanced = counter(bed.nodes[0]!, 'COUNTER_BALANCED');
      for (const packet of [flag(port, ['ACK'], front), flag(nextPort(), ['SYN'], front)]) {
        const node = bed.nodes[0]!;
        assert.equal(asFramed(bed, 0, packet).outcome, 'left to the kernel');
        const { retval, data } = withNetns(node.netnsFd, () =>
          testRun(services.xdp[0]!.program('balance_xdp').fd, packet, { xdpIfindex: node.deviceIfindex }),
        );
        assert.deepEqual([retval, Buffer.compare(data, packet)], [2, 0]);
      }
      assert.equal(asFramed(bed, 0, flag(nextPort(), ['SYN'], pod('near'))).outcome, 'left to the kernel');
      assert.equal(counter(bed.nodes[0]!, 'COUNTER_BALANCED'), balanced);
    });

    test(`with direct return a connection outlives the node that took it: another one finds the same backend (${name})`, () => {
      const front = add(frontend([pod('far')], { directReturn: true }));
      const port = nextPort();
      const first = fromWire(bed, 0, syn(client, front, six, port, 80));
      assertSentOn(fromWire(bed, 1, first.data));
      // The first node is gone: the next packet comes to the other, which never saw the connection as a balancer.
      const next = withChecksum(
        tcpPacket({ from: client, to: front, six, sourcePort: port, destinationPort: 80, flags: ['ACK'] }),
      );
      const sent = fromWire(bed, 1, next);
      assertSentOn(sent);
      assert.equal(readPacket(sent.data).destination, pod('far')[key]);
      assert.ok(!sent.events.some((event) => event.type === 1), 'no new connection: it is the one that was there');
    });

    test(`an ICMP error about a translated packet finds the client, about an answer the backend (${name})`, () => {
      const front = add(frontend([pod('near')]));
      const port = nextPort();
      fromWire(bed, 0, syn(client, front, six, port, 80));
      fromWire(
        bed,
        0,
        withChecksum(
          tcpPacket({ from: client, to: front, six, sourcePort: port, destinationPort: 80, flags: ['ACK'] }),
        ),
      );
      const answer = tcpPacket({
        from: front,
        to: client,
        six,
        sourcePort: 80,
        destinationPort: port,
        flags: ['ACK'],
        payload: new Uint8Array(64),
      });
      const error = withChecksum(
        icmpErrorPacket({ from: stranger, to: front, six, type: six ? 2 : 3, code: six ? 0 : 4, about: answer }),
      );
      const sent = fromWire(bed, 0, error);
      assertSentOn(sent);
      assert.equal(readPacket(sent.data).destination, pod('near')[key]);
      const inner = readPacket(sent.data, six ? 14 + 40 + 8 : 14 + 20 + 8);
      assert.deepEqual([inner.source, inner.sourcePort], [pod('near')[key], 8080]);
      assert.ok(checksumsHold(sent.data));
    });

    test(`UDP to a frontend is answered by it, in fragments too (${name})`, () => {
      const front = add(frontend([pod('near')], { protocol: 'UDP' }));
      const port = nextPort();
      const mac = podMac(pod('client').ifindex);
      const id = port;
      const whole = { from: pod('client'), to: front, six, sourceMac: mac, sourcePort: port, destinationPort: 80 };
      const first = udpPacket({ ...whole, payload: new Uint8Array(24), fragment: { id, offset: 0, more: true } });
      const sent = fromPod(bed, pod('client'), first);
      assertSentOn(sent);
      const later = udpPacket({ ...whole, payload: new Uint8Array(24), fragment: { id, offset: 32, more: false } });
      const rest = fromPod(bed, pod('client'), later);
      assertSentOn(rest);
      assert.equal(readPacket(rest.data).destination, pod('near')[key]);
    });
  }
});

describe('services on packets, inside other packets', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'near', node: 0 },
        { name: 'far', node: 1 },
        { name: 'idle', node: 1 },
      ],
    });
    services = createBedServices(bed, { tunnel: true });
    const [here, there] = [bed.nodes[0]!, bed.nodes[1]!];
    const mac = getLink(there.netlink, 'eth0')!.mac;
    for (const address of [there.ipv4, there.ipv6])
      setNeighbour(here.netlink, { ifindex: here.deviceIfindex, address, mac });
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  for (const { name, six, key } of families) {
    const protocol = six ? 41 : 4;
    for (const hook of ['tc', 'XDP'] as const) {
      test(`the packet travels as it was, and the backend's node takes it out, in ${hook} (${name})`, () => {
        const front = frontend([bed.pod('far')], { directReturn: true });
        services.add(front);
        const port = nextPort();
        const packet = syn(client, front, six, port, 80);
        let data = fromWire(bed, 0, packet).data;
        if (hook === 'XDP') {
          const run = withNetns(bed.nodes[0]!.netnsFd, () =>
            testRun(services.xdp[0]!.program('balance_xdp').fd, framedFor(bed.nodes[0]!, packet), {
              xdpIfindex: bed.nodes[0]!.deviceIfindex,
            }),
          );
          assert.ok(run.retval === 3 || run.retval === 4, `XDP answered ${run.retval}`);
          data = run.data;
        }
        const outer = readPacket(data);
        assert.deepEqual(
          [outer.source, outer.destination, outer.protocol],
          [bed.nodes[0]![key], bed.pod('far')[key], protocol],
        );
        const inner = readPacket(data, six ? 54 : 34);
        assert.deepEqual(
          [inner.source, inner.destination, inner.destinationPort, inner.ttl],
          [client[key], front[key], 80, 63],
        );

        const unpacked = fromWire(bed, 1, data);
        assertSentOn(unpacked); // comes in once more
        const arrived = fromWire(bed, 1, unpacked.data);
        assertSentOn(arrived);
        const seen = readPacket(arrived.data);
        assert.deepEqual(
          [seen.source, seen.destination, seen.destinationPort],
          [client[key], bed.pod('far')[key], 8080],
        );
        assert.ok(checksumsHold(arrived.data));
      });
    }

    test(`datagrams in fragments get through, first one first (${name})`, () => {
      const front = frontend([bed.pod('far')], { directReturn: true, protocol: 'UDP' });
      services.add(front);
      const port = nextPort();
      const whole = {
        from: client,
        to: front,
        six,
        sourcePort: port,
        destinationPort: 80,
        payload: new Uint8Array(24),
      };
      const part = (id: number, offset: number) =>
        udpPacket({ ...whole, fragment: { id, offset, more: offset === 0 } });
      // The second one is there before the first came in once more.
      const unpacked = [0, 32].map((offset) => fromWire(bed, 1, fromWire(bed, 0, part(port, offset)).data));
      for (const each of unpacked) {
        assertSentOn(each);
        const arrived = fromWire(bed, 1, each.data);
        assertSentOn(arrived);
        assert.equal(readPacket(arrived.data).destination, bed.pod('far')[key]);
      }
      // What came without its first is not believed by its looks.
      fromWire(bed, 0, part(port + 1, 0));
      const lonely = fromWire(bed, 1, fromWire(bed, 0, part(port + 1, 32)).data);
      assert.deepEqual([lonely.outcome, lonely.reason], ['dropped', 'FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND']);
    });

    test(`a packet inside another one between pods is one like any other (${name})`, () => {
      const [near, far] = [bed.pod('near'), bed.pod('far')];
      const inner = syn(client, stranger, six, 1, 2).slice(14);
      const packet = ipPacket({ from: near, to: far, six, sourceMac: podMac(near.ifindex) }, protocol, inner);
      const sent = fromPod(bed, near, packet);
      assertSentOn(sent);
      const arrived = fromWire(bed, 1, sent.data);
      assertSentOn(arrived);
      const seen = readPacket(arrived.data);
      assert.deepEqual([seen.source, seen.destination, seen.protocol], [near[key], far[key], protocol]);
      assert.ok(arrived.events.some((event) => event.type === 1 && event.protocol === protocol));
      bed.setPolicies([denyIngress('shut', 'idle')]);
      const denied = fromWire(bed, 1, ipPacket({ from: near, to: bed.pod('idle'), six }, protocol, inner));
      bed.setPolicies([]);
      assert.deepEqual([denied.outcome, denied.reason], ['dropped', 'POLICY_DENIED']);
    });

    test(`a packet inside another one is believed from nodes only, and only for a backend (${name})`, () => {
      const front = frontend([bed.pod('far')], { directReturn: true });
      services.add(front);
      const data = fromWire(bed, 0, syn(client, front, six, nextPort(), 80)).data;
      const strangers = Uint8Array.from(data);
      strangers.set(bytesOf(stranger, six), six ? 14 + 8 : 14 + 12);
      const fromStranger = fromWire(bed, 1, strangers);
      assert.deepEqual([fromStranger.outcome, fromStranger.reason], ['dropped', 'ENCAPSULATION_TRAFFIC_IS_PROHIBITED']);
      const misdirected = Uint8Array.from(data);
      misdirected.set(bytesOf(bed.pod('idle'), six), six ? 14 + 24 : 14 + 16);
      const toAnother = fromWire(bed, 1, misdirected);
      assert.deepEqual([toAnother.outcome, toAnother.reason], ['dropped', 'DIRECT_RETURN_NOT_BELIEVED']);
    });

    test(`what does not fit with the outer header is refused with the size that does (${name})`, () => {
      const front = frontend([bed.pod('far')], { directReturn: true });
      services.add(front);
      const port = nextPort();
      fromWire(bed, 0, syn(client, front, six, port, 80));
      const headers = six ? 60 : 40;
      const large = tcpPacket({
        from: client,
        to: front,
        six,
        sourcePort: port,
        destinationPort: 80,
        flags: ['ACK'],
        payload: new Uint8Array(1500 - headers),
      });
      const refused = fromWire(bed, 0, withChecksum(large));
      assertSentOn(refused);
      const seen = readPacket(refused.data);
      assert.deepEqual([seen.source, seen.destination, seen.protocol], [front[key], client[key], six ? 58 : 1]);
      const mtu = new DataView(seen.body.buffer, seen.body.byteOffset).getUint32(4);
      assert.equal(mtu, six ? 1460 : 1480);
      assert.ok(checksumsHold(refused.data));
    });
  }
});

describe('policyDenyResponse: icmp', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
      ],
    });
    services = createBedServices(bed, { refuseDenied: true });
    bed.setPolicies([denyIngress('shut', 'b')]);
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  for (const { name, six, key } of families) {
    test(`a packet that policy denies is dropped, said, and answered (${name})`, () => {
      const [a, b] = [bed.pod('a'), bed.pod('b')];
      const denied = fromPod(bed, a, syn(a, b, six, nextPort(), 80, podMac(a.ifindex)));
      assert.deepEqual([denied.outcome, denied.reason], ['sent on', 'POLICY_DENIED']);
      const seen = readPacket(denied.data);
      assert.deepEqual([seen.source, seen.destination], [b[key], a[key]]);
      assert.deepEqual([seen.protocol, ...seen.body.slice(0, 2)], six ? [58, 1, 4] : [1, 3, 3]);
      assert.ok(checksumsHold(denied.data));
    });

    test(`the shortest packets are answered as well, and no padding is quoted (${name})`, () => {
      const [a, b] = [bed.pod('a'), bed.pod('b')];
      const ends = { from: a, to: b, six, sourceMac: podMac(a.ifindex) };
      const header = six ? 40 : 20;
      const shorts = [
        ...Array.from({ length: 14 }, (_, length) =>
          udpPacket({ ...ends, sourcePort: nextPort(), destinationPort: 80, payload: new Uint8Array(length).fill(7) }),
        ),
        ipPacket(ends, 253, new Uint8Array([1, 2, 3])),
        ipPacket(ends, 253, new Uint8Array(0)),
      ];
      for (const packet of shorts) {
        const padding = packet.length < 60 ? [0, 60 - packet.length] : [0];
        for (const bytes of padding) {
          const framed = new Uint8Array(packet.length + bytes).fill(0x5a);
          framed.set(packet);
          const denied = fromPod(bed, a, framed);
          const text = `${packet.length - 14} bytes, ${bytes} behind`;
          assert.deepEqual([denied.outcome, denied.reason], ['sent on', 'POLICY_DENIED'], text);
          const seen = readPacket(denied.data);
          assert.deepEqual([seen.source, seen.destination, seen.protocol], [b[key], a[key], six ? 58 : 1], text);
          assert.ok(checksumsHold(denied.data), text);
          // An empty IPv6 packet says the same of its length as one that is too long for the field.
          const said = six && packet.length === 54 ? framed.length - 14 : packet.length - 14;
          const quoted = seen.body.slice(8);
          assert.deepEqual(quoted, framed.slice(14, 14 + Math.min(said, header + (six ? 16 : 8))), text);
          assert.equal(denied.data.length, 14 + header + 8 + quoted.length, text);
        }
      }
    });

    test(`what belongs to a connection that policy cuts is answered, by a reset where it is TCP (${name})`, () => {
      const [a, b] = [bed.pod('a'), bed.pod('b')];
      const front = frontend([b]);
      services.add(front);
      const [direct, served, datagrams] = [nextPort(), nextPort(), nextPort()];
      const mac = { sourceMac: podMac(a.ifindex) };
      const segment = (to: PacketEnd, sourcePort: number, sequence: number, acknowledge: number) =>
        withChecksum(
          tcpPacket({
            from: a,
            to,
            six,
            ...mac,
            sourcePort,
            destinationPort: 80,
            flags: ['ACK'],
            sequence,
            acknowledge,
          }),
        );
      const datagram = udpPacket({
        from: a,
        to: b,
        six,
        ...mac,
        sourcePort: datagrams,
        destinationPort: 80,
        payload: new Uint8Array(16),
      });
      const back = withChecksum(
        tcpPacket({
          from: b,
          to: a,
          six,
          sourceMac: podMac(b.ifindex),
          sourcePort: 80,
          destinationPort: direct,
          flags: ['ACK'],
          sequence: 7,
          acknowledge: 8,
        }),
      );
      bed.setPolicies([]);
      for (const [to, port] of [
        [b, direct],
        [front, served],
      ] as const) {
        assertSentOn(fromPod(bed, a, syn(a, to, six, port, 80, podMac(a.ifindex))));
        assertSentOn(fromPod(bed, a, segment(to, port, 1000, 2000)));
      }
      assertSentOn(fromPod(bed, a, datagram));
      assertSentOn(fromPod(bed, b, back));
      bed.setPolicies([denyIngress('shut', 'b')]);
      for (const [from, packet, answered, port, ack] of [
        [a, segment(b, direct, 1000, 2000), b, 80, 2000],
        [a, segment(b, direct, 1000, 2000), b, 80, 2000],
        [b, back, a, direct, 8],
        [a, segment(front, served, 1000, 2000), front, 80, 2000],
      ] as const) {
        const cut = fromPod(bed, from, packet);
        assert.deepEqual([cut.outcome, cut.reason], ['sent on', 'POLICY_DENIED']);
        const seen = readPacket(cut.data);
        assert.deepEqual([seen.source, seen.sourcePort, seen.destination], [answered[key], port, from[key]]);
        const tcp = new DataView(seen.body.buffer, seen.body.byteOffset);
        assert.deepEqual([seen.protocol, seen.body[13]! & 0x3f, tcp.getUint32(4)], [6, 4, ack]);
        assert.equal(cut.data.length, six ? 74 : 54);
        assert.ok(checksumsHold(cut.data));
      }
      const refused = readPacket(fromPod(bed, a, datagram).data);
      assert.deepEqual([refused.source, refused.protocol], [b[key], six ? 58 : 1]);
      const reset = withChecksum(
        tcpPacket({ from: a, to: b, six, ...mac, sourcePort: direct, destinationPort: 80, flags: ['RST', 'ACK'] }),
      );
      assert.equal(fromPod(bed, a, reset).outcome, 'dropped', 'a reset is not answered');
    });

    test(`the answer speaks of the frontend, where that was asked (${name})`, () => {
      const [a, b] = [bed.pod('a'), bed.pod('b')];
      const front = frontend([b]);
      services.add(front);
      const denied = fromPod(bed, a, syn(a, front, six, nextPort(), 80, podMac(a.ifindex)));
      assert.deepEqual([denied.outcome, denied.reason], ['sent on', 'POLICY_DENIED']);
      const seen = readPacket(denied.data);
      assert.equal(seen.source, front[key]);
      const inner = readPacket(denied.data, six ? 14 + 40 + 8 : 14 + 20 + 8);
      assert.deepEqual([inner.destination, inner.destinationPort], [front[key], 80]);
    });
  }
});

function assertSentOn(result: { outcome: string; reason?: string }): void {
  assert.deepEqual([result.outcome, result.reason], ['sent on', undefined]);
}

function bytesOf(end: PacketEnd, six: boolean): Uint8Array {
  const frame = tcpPacket({ from: end, to: end, six, sourcePort: 1, destinationPort: 1, flags: [] });
  return six ? frame.slice(22, 38) : frame.slice(26, 30);
}
