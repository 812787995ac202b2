// What senders of ill will, reused ports and settings that are not there yet must not do to services on packets.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { datapathMaps } from '../../src/kernel/datapath.gen.ts';
import { type TypedMap, typedMap } from '../../src/kernel/typed-map.ts';
import { type Bed, type BedPod, createBed } from '../../test/bed/bed.ts';
import { type PacketEnd, sctpPacket, type TcpFlag, tcpPacket } from '../../test/bed/packet.ts';
import { readPacket, withChecksum } from '../../test/bed/read-packet.ts';
import { type BedFrontend, type BedServices, createBedServices, natEnd } from '../../test/bed/services.ts';
import { fromNode, fromPod, fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const families = [
  { name: 'IPv4', six: false, key: 'ipv4' },
  { name: 'IPv6', six: true, key: 'ipv6' },
] as const;

const client: PacketEnd = { ipv4: '10.9.0.200', ipv6: 'fd09::200' };
let lastPort = 30_000;
const nextPort = () => ++lastPort;

describe('services under attack and out of the ordinary', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  const pod = (name: string) => bed.pod(name);
  let frontends = 0;
  function add(backends: readonly BedPod[], more: Partial<BedFrontend> = {}): BedFrontend {
    const number = ++frontends;
    const ends = { ipv4: `192.0.2.${number}`, ipv6: `2001:db8::${number.toString(16)}` };
    const made = { ...ends, port: 80, targetPort: 8080, backends, ...more };
    services.add(made);
    return made;
  }
  const flows = () => typedMap(bed.nodes[0]!.datapath!.map('service_flows'), datapathMaps.service_flows);
  const count = (map: TypedMap<unknown, unknown>) => [...map.entries()].length;

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'evil', node: 0 },
        { name: 'near', node: 0 },
        { name: 'far', node: 1 },
        { name: 'far2', node: 1 },
        { name: 'far3', node: 1 },
      ],
    });
    services = createBedServices(bed);
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  for (const { name, six, key } of families) {
    const tcp = (from: PacketEnd, to: PacketEnd, sourcePort: number, flags: TcpFlag[], mac?: string, port = 80) =>
      withChecksum(
        tcpPacket({
          from,
          to,
          six,
          sourcePort,
          destinationPort: port,
          flags,
          ...(mac === undefined ? {} : { sourceMac: mac }),
        }),
      );

    test(`a pod that gives another's address as its own leaves no trace in the flows (${name})`, () => {
      const front = add([pod('near'), pod('far')]);
      const known = count(flows());
      const sent = fromPod(bed, pod('evil'), tcp(client, front, nextPort(), ['SYN'], podMac(pod('evil').ifindex)));
      assert.deepEqual([sent.outcome, sent.reason], ['dropped', 'INVALID_SOURCE_IP']);
      assert.equal(count(flows()), known);
    });

    test(`from the wire nobody speaks to a frontend as a pod of this node, or leaves a trace as one (${name})`, () => {
      for (const backend of ['near', 'far']) {
        const front = add([pod(backend)]);
        const port = nextPort();
        const known = count(flows());
        const forged = fromWire(bed, 0, tcp(pod('evil'), front, port, ['SYN']));
        assert.notEqual(forged.outcome, 'sent on');
        assert.equal(count(flows()), known);
        const own = fromPod(bed, pod('evil'), tcp(pod('evil'), front, port, ['SYN'], podMac(pod('evil').ifindex)));
        assert.deepEqual([own.outcome, own.reason], ['sent on', undefined]);
      }
    });

    test(`a flow of the balancer does not carry a pod's packet past its policy (${name})`, () => {
      const front = add([pod('far')]);
      const port = nextPort();
      fromWire(bed, 0, tcp(client, front, port, ['SYN']));
      const made = flows()
        .entries()
        .find((each) => each.key.sport === port)!;
      const src = fromPod(bed, pod('evil'), tcp(pod('evil'), front, port, ['SYN'], podMac(pod('evil').ifindex)));
      assert.equal(src.outcome, 'sent on');
      for (const { key: at } of flows().entries())
        if (at.sport === port) flows().update(at, { ...made.value, lastSeen: made.value.lastSeen });
      const sent = fromPod(bed, pod('evil'), tcp(pod('evil'), front, port, ['SYN'], podMac(pod('evil').ifindex)));
      assert.equal(sent.outcome, 'sent on');
      assert.equal(readPacket(sent.data).destination, pod('far')[key]);
    });

    test(`what comes for the translating address and no flow knows ends at the node (${name})`, () => {
      const sent = fromNode(bed, 0, tcp(client, natEnd(0), 4000, ['ACK'], undefined, 4001));
      assert.deepEqual([sent.outcome, sent.reason], ['dropped', 'STALE_OR_UNROUTABLE_IP']);
    });

    test(`with direct return a port that begins anew is answered by the frontend again (${name})`, () => {
      const front = add([pod('far')], { directReturn: true });
      const port = nextPort();
      const answer = () => {
        const opened = fromWire(bed, 0, tcp(client, front, port, ['SYN']));
        assert.equal(fromWire(bed, 1, opened.data).outcome, 'sent on');
        const mac = podMac(pod('far').ifindex);
        const back = withChecksum(
          tcpPacket({
            from: pod('far'),
            to: client,
            six,
            sourceMac: mac,
            sourcePort: 8080,
            destinationPort: port,
            flags: ['SYN', 'ACK'],
          }),
        );
        return readPacket(fromPod(bed, pod('far'), back).data).source;
      };
      assert.equal(answer(), front[key]);
      assert.equal(answer(), front[key], 'the second time');
    });

    test(`a port that begins anew after a reset has a whole life before it (${name})`, () => {
      const front = add([pod('far')]);
      const port = nextPort();
      const lifetimes = () =>
        [...flows().entries()].filter((each) => each.key.sport === port).map((each) => each.value.lifetime);
      const first = readPacket(fromWire(bed, 0, tcp(client, front, port, ['SYN'])).data);
      fromWire(bed, 0, tcp(client, front, port, ['ACK']));
      const [open] = lifetimes();
      fromWire(bed, 0, tcp(client, front, port, ['RST']));
      assert.ok(lifetimes()[0]! < open!);
      const second = readPacket(fromWire(bed, 0, tcp(client, front, port, ['SYN'])).data);
      assert.deepEqual(lifetimes(), [open]);
      assert.notEqual(second.sourcePort, first.sourcePort, 'the backend may not be done with the first');
    });

    test(`what only opens connections leaves no flow, and the next packet goes the same way, whatever changes (${name})`, () => {
      for (const directReturn of [false, true]) {
        const front = add([pod('far'), pod('far2')], { directReturn });
        const known = count(flows());
        const send = (port: number, flag: TcpFlag) => {
          const seen = readPacket(fromWire(bed, 0, tcp(client, front, port, [flag])).data);
          return [seen.destination, seen.sourcePort];
        };
        const opened = Array.from({ length: 20 }, nextPort).map((port) => ({ port, went: send(port, 'SYN') }));
        assert.equal(count(flows()), known);
        // Nor when the backends changed in between: what begins now is given others.
        services.add({ ...front, backends: ['far3', 'far2', 'far'].map(pod) });
        for (const { port, went } of opened) assert.deepEqual(send(port, 'ACK'), went);
        assert.equal(count(flows()), known + opened.length);
      }
    });

    test(`a connection that the tables forgot goes on behind the same port (${name})`, () => {
      const front = add([pod('far'), pod('far2'), pod('far3')]);
      const port = nextPort();
      const replies = typedMap(bed.nodes[0]!.datapath!.map('service_replies'), datapathMaps.service_replies);
      const opened = readPacket(fromWire(bed, 0, tcp(client, front, port, ['SYN'])).data);
      const forget = (reply: boolean) => {
        for (const { key: at } of flows().entries()) if (at.sport === port) flows().delete(at);
        if (reply) for (const { key: at } of replies.entries()) if (at.dport === opened.sourcePort) replies.delete(at);
      };
      for (const reply of [false, true]) {
        fromWire(bed, 0, tcp(client, front, port, ['ACK']));
        forget(reply);
        const next = readPacket(fromWire(bed, 0, tcp(client, front, port, ['ACK'])).data);
        assert.deepEqual([next.destination, next.sourcePort], [opened.destination, opened.sourcePort]);
      }
    });

    test(`a flow whose port went to another gets one of its own (${name})`, () => {
      const front = add([pod('far')]);
      const port = nextPort();
      const first = readPacket(fromWire(bed, 0, tcp(client, front, port, ['SYN'])).data);
      const replies = typedMap(bed.nodes[0]!.datapath!.map('service_replies'), datapathMaps.service_replies);
      for (const { key: at, value } of replies.entries())
        if (at.dport === first.sourcePort) replies.update(at, { ...value, clientPort: 1 });
      for (const { key: at, value } of flows().entries())
        if (at.sport === port)
          flows().update(at, { ...value, way: { ...value.way, checked: value.way.checked - 2000 } });
      fromWire(bed, 0, tcp(client, front, port, ['SYN']));
      const sent = fromWire(bed, 0, tcp(client, front, port, ['SYN']));
      assert.equal(sent.outcome, 'sent on');
      assert.notEqual(readPacket(sent.data).sourcePort, first.sourcePort);
    });

    test(`an address that moves to another service leads to that one's backends, whoever asked before (${name})`, () => {
      for (const [first, second] of [
        ['far', 'far2'],
        ['near', 'evil'],
      ] as const) {
        const front = add([pod(first)]);
        add([pod(first)]); // The first service lives on, and so does its backend.
        const port = nextPort();
        const goesTo = (flag: TcpFlag) =>
          readPacket(fromWire(bed, 0, tcp(client, front, port, [flag])).data).destination;
        assert.deepEqual([goesTo('SYN'), goesTo('ACK')], [pod(first)[key], pod(first)[key]]);
        services.add({ ...front, service: 'default/other', backends: [pod(second)] });
        assert.deepEqual([goesTo('SYN'), goesTo('ACK')], [pod(second)[key], pod(second)[key]]);
      }
    });

    test(`SCTP keeps its port on the way to a backend elsewhere (${name})`, () => {
      const front = add([pod('far')], { protocol: 'SCTP', targetPort: 80 });
      const port = nextPort();
      const sent = fromWire(
        bed,
        0,
        sctpPacket({ from: client, to: front, six, sourcePort: port, destinationPort: 80 }),
      );
      assert.deepEqual([sent.outcome, sent.reason], ['sent on', undefined]);
      const seen = readPacket(sent.data);
      assert.deepEqual([seen.source, seen.sourcePort, seen.destination], [natEnd(0)[key], port, pod('far')[key]]);
    });

    test(`before the node knows behind which address it translates, it does not (${name})`, () => {
      const front = add([pod('far')]);
      const config = typedMap(bed.nodes[0]!.datapath!.map('lb_config'), datapathMaps.lb_config);
      const set = config.lookup(0)!;
      const known = count(flows());
      config.update(0, { ...set, nat4: new Uint8Array(16), nat6: new Uint8Array(16) });
      const sent = fromWire(bed, 0, tcp(client, front, nextPort(), ['SYN']));
      config.update(0, set);
      assert.deepEqual([sent.outcome, sent.reason], ['dropped', 'NO_MAPPING_FOR_NAT_MASQUERADE']);
      assert.equal(count(flows()), known);
    });
  }
});
