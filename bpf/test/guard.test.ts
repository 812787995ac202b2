// The host firewall on single packets: the node's own traffic with other machines on its devices, and with its pods.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import type { PolicyRow } from '../../src/core/rows.ts';
import { EventFlags, EventType, HostFirewall } from '../../src/kernel/datapath.gen.ts';
import { essentialPolicy } from '../../src/secure/policy/essential-traffic.ts';
import { readPolicies } from '../../src/secure/policy/read-policies.ts';
import { emptyContext } from '../../src/secure/policy/resolve-policy.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import {
  echoPacket,
  icmpErrorPacket,
  icmpPacket,
  type PacketEnd,
  type TcpFlag,
  tcpPacket,
  udpPacket,
} from '../../test/bed/packet.ts';
import { readPacket } from '../../test/bed/read-packet.ts';
import { type BedServices, createBedServices } from '../../test/bed/services.ts';
import { connections, fromNode, fromPod, fromWire, ontoWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const world: PacketEnd = { ipv4: '203.0.113.9', ipv6: '2001:db8::9' };
const drop_reports_per_second = 1_000_000;

/** A policy for the node. */
function nodePolicy(name: string, spec: Record<string, unknown>): PolicyRow {
  const [row] = readPolicies(
    [
      {
        apiVersion: 'cilium.io/v2',
        kind: 'CiliumClusterwideNetworkPolicy',
        metadata: { name },
        spec: { nodeSelector: {}, ...spec },
      },
    ],
    { ...emptyContext, nodeLabels: {} },
  );
  return row!;
}

const tcpPort = (port: number) => [{ ports: [{ port: String(port), protocol: 'TCP' }] }];
const essential = essentialPolicy({ nodeLabels: {}, podCidrs: ['10.244.0.0/24', 'fd44:0:0:1::/64'] });
const sshOnly = nodePolicy('ssh-only', { ingress: [{ fromEntities: ['world'], toPorts: tcpPort(22) }] });
const nothing = nodePolicy('nothing', { ingress: [{}], egress: [{}] });

describe('host firewall, enforcing', { skip }, () => {
  let bed: Bed;
  let node: PacketEnd;
  let other: PacketEnd;
  let port = 20_000;
  const nextPort = () => port++;

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'c', node: 1 },
      ],
      constants: { drop_reports_per_second, host_firewall: HostFirewall.HOST_FIREWALL_ENFORCE },
    });
    node = bed.nodes[0]!;
    other = bed.nodes[1]!;
  });
  after(() => bed?.close());

  for (const six of [false, true]) {
    const family = six ? 'IPv6' : 'IPv4';
    const tcp = (from: PacketEnd, to: PacketEnd, sourcePort: number, destinationPort: number, flags: TcpFlag[]) =>
      tcpPacket({ from, to, six, sourcePort, destinationPort, flags });

    test(`without a policy for the node everything passes (${family})`, () => {
      bed.setPolicies([essential]);
      assert.equal(fromWire(bed, 0, tcp(world, node, nextPort(), 8080, ['SYN'])).outcome, 'left to the kernel');
      assert.equal(ontoWire(bed, 0, tcp(node, world, nextPort(), 8080, ['SYN'])).outcome, 'left to the kernel');
    });

    test(`ingress: what is allowed passes, the rest is dropped in the policy's name (${family})`, () => {
      bed.setPolicies([essential, sshOnly]);
      assert.equal(fromWire(bed, 0, tcp(world, node, nextPort(), 22, ['SYN'])).outcome, 'left to the kernel');
      const denied = fromWire(bed, 0, tcp(world, node, nextPort(), 8080, ['SYN']));
      assert.equal(denied.reason, 'POLICY_DENIED');
      const [event] = denied.events;
      assert.equal(event!.direction, 1);
      assert.deepEqual(event!.identity, [six ? 10 : 9, 1]);
      const cookie = bed.nodes[0]!.compiler!.cookie(event!.cookie[1]!);
      assert.deepEqual([cookie?.verdict, cookie?.rules[0]?.name], ['default-deny', 'ssh-only']);
      // Egress is not isolated.
      assert.equal(ontoWire(bed, 0, tcp(node, world, nextPort(), 8080, ['SYN'])).outcome, 'left to the kernel');
    });

    test(`replies need no rule, both ways, and are counted with their connection (${family})`, () => {
      bed.setPolicies([
        essential,
        nodePolicy('web', {
          ingress: [{ fromEntities: ['world'], toPorts: tcpPort(22) }],
          egress: [{ toPorts: tcpPort(443) }],
        }),
      ]);
      const [there, back] = [nextPort(), nextPort()];
      assert.equal(fromWire(bed, 0, tcp(world, node, there, 22, ['SYN'])).outcome, 'left to the kernel');
      assert.equal(ontoWire(bed, 0, tcp(node, world, 22, there, ['SYN', 'ACK'])).outcome, 'left to the kernel');
      const established = fromWire(bed, 0, tcp(world, node, there, 22, ['ACK']));
      assert.equal(established.outcome, 'left to the kernel');
      assert.equal(established.events.length, 0);
      assert.equal(ontoWire(bed, 0, tcp(node, world, back, 443, ['SYN'])).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(world, node, 443, back, ['SYN', 'ACK'])).outcome, 'left to the kernel');
      const entries = connections(bed.nodes[0]!).filter((entry) => entry.packets[0] === 2n && entry.packets[1] === 1n);
      assert.ok(entries.length > 0);
      // A SYN the other way is another connection.
      assert.equal(fromWire(bed, 0, tcp(world, node, 443, back, ['SYN'])).reason, 'POLICY_DENIED');
      assert.equal(ontoWire(bed, 0, tcp(node, world, nextPort(), 80, ['SYN'])).reason, 'POLICY_DENIED');
      assert.equal(fromWire(bed, 0, tcp(world, node, 443, back, ['ACK'])).outcome, 'left to the kernel');
    });

    test(`a new deny cuts what is open, and an allow frees it (${family})`, () => {
      bed.setPolicies([essential, sshOnly]);
      const from = nextPort();
      fromWire(bed, 0, tcp(world, node, from, 22, ['SYN']));
      ontoWire(bed, 0, tcp(node, world, 22, from, ['SYN', 'ACK']));
      const deny = nodePolicy('no-ssh', { ingressDeny: [{ fromEntities: ['world'], toPorts: tcpPort(22) }] });
      bed.setPolicies([essential, sshOnly, deny]);
      assert.equal(fromWire(bed, 0, tcp(world, node, from, 22, ['ACK'])).reason, 'POLICY_DENIED');
      assert.equal(ontoWire(bed, 0, tcp(node, world, 22, from, ['ACK'])).reason, 'POLICY_DENIED');
      bed.setPolicies([essential, sshOnly]);
      assert.equal(fromWire(bed, 0, tcp(world, node, from, 22, ['ACK'])).outcome, 'left to the kernel');
    });

    test(`what was open when the firewall came goes on, in the direction in which it is allowed (${family})`, () => {
      bed.setPolicies([essential, sshOnly, nothing]);
      const from = nextPort();
      assert.equal(ontoWire(bed, 0, tcp(node, world, 22, from, ['ACK'])).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(world, node, from, 22, ['ACK'])).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(world, node, nextPort(), 80, ['ACK'])).reason, 'POLICY_DENIED');
    });

    test(`what a node cannot do without stays open, unless it is denied by name (${family})`, () => {
      bed.setPolicies([essential, nothing]);
      assert.equal(fromWire(bed, 0, tcp(other, node, nextPort(), 10_250, ['SYN'])).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(world, node, nextPort(), 10_250, ['SYN'])).reason, 'POLICY_DENIED');
      assert.equal(fromWire(bed, 0, tcp(other, node, nextPort(), 10_251, ['SYN'])).reason, 'POLICY_DENIED');
      const rest = new Uint8Array(20);
      if (six) {
        const ask = (from: PacketEnd, to: PacketEnd) => icmpPacket({ from, to, six, type: 135, rest });
        assert.equal(fromWire(bed, 0, ask(other, node)).outcome, 'left to the kernel');
        assert.equal(ontoWire(bed, 0, ask(node, other)).outcome, 'left to the kernel');
      }
      const lease = udpPacket({ from: world, to: node, six, sourcePort: 67, destinationPort: six ? 546 : 68 });
      assert.equal(fromWire(bed, 0, lease).outcome, 'left to the kernel');
      const deny = nodePolicy('no-kubelet', { ingressDeny: [{ toPorts: tcpPort(10_250) }] });
      bed.setPolicies([essential, nothing, deny]);
      const denied = fromWire(bed, 0, tcp(other, node, nextPort(), 10_250, ['SYN']));
      assert.equal(denied.reason, 'POLICY_DENIED');
      assert.equal(bed.nodes[0]!.compiler!.cookie(denied.events[0]!.cookie[1]!)?.rules[0]?.name, 'no-kubelet');
    });

    test(`echo is judged by its type; errors belong to what they speak of (${family})`, () => {
      bed.setPolicies([nothing]);
      assert.equal(fromWire(bed, 0, echoPacket({ from: world, to: node, six, id: 7 })).reason, 'POLICY_DENIED');
      const type = six ? 1 : 3;
      const about = (sourcePort: number) => tcp(node, world, sourcePort, 443, ['SYN']);
      const error = (sourcePort: number) =>
        icmpErrorPacket({ from: world, to: node, six, type, about: about(sourcePort) });
      const from = nextPort();
      assert.equal(fromWire(bed, 0, error(from)).reason, 'POLICY_DENIED', 'of a connection that nobody knows');
      bed.setPolicies([nothing, nodePolicy('out', { egress: [{ toPorts: tcpPort(443) }] })]);
      assert.equal(ontoWire(bed, 0, about(from)).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, error(from)).outcome, 'left to the kernel');
      bed.setPolicies([essential, nothing]);
      assert.equal(fromWire(bed, 0, error(nextPort())).outcome, 'left to the kernel', 'essential');
    });

    test(`the node and its pods (${family})`, () => {
      const a = bed.pod('a');
      bed.setPolicies([essential, nothing]);
      const probe = fromNode(bed, 0, tcp(node, a, nextPort(), 80, ['SYN']));
      assert.equal(probe.outcome, 'sent on', 'probes of the kubelet');
      const toNode = (destinationPort: number) =>
        tcpPacket({
          from: a,
          to: node,
          six,
          sourceMac: podMac(a.ifindex),
          sourcePort: nextPort(),
          destinationPort,
          flags: ['SYN'],
        });
      const denied = fromPod(bed, a, toNode(80));
      assert.equal(denied.reason, 'POLICY_DENIED');
      assert.equal(denied.events[0]!.direction, 1);
      assert.deepEqual(denied.events[0]!.identity, [a.identity, 1]);
      bed.setPolicies([nothing]);
      const shutOut = fromNode(bed, 0, tcp(node, a, nextPort(), 80, ['SYN']));
      assert.deepEqual([shutOut.reason, shutOut.events[0]!.direction], ['POLICY_DENIED', 2]);
      bed.setPolicies([
        essential,
        nothing,
        nodePolicy('pods', { ingress: [{ fromEntities: ['cluster'], toPorts: tcpPort(80) }] }),
      ]);
      assert.equal(fromPod(bed, a, toNode(80)).outcome, 'sent on');
      assert.equal(fromPod(bed, a, toNode(81)).reason, 'POLICY_DENIED');
      // A pod of another node, over the wire.
      assert.equal(fromWire(bed, 0, tcp(bed.pod('c'), node, nextPort(), 80, ['SYN'])).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(bed.pod('c'), node, nextPort(), 81, ['SYN'])).reason, 'POLICY_DENIED');
    });

    test(`what only goes by is not the node's own (${family})`, () => {
      bed.setPolicies([nothing]);
      assert.equal(
        fromWire(bed, 0, tcp(world, { ipv4: '198.51.100.7', ipv6: '2001:db8:1::7' }, nextPort(), 80, ['SYN'])).outcome,
        'left to the kernel',
      );
      const wire = bed.nodes[0]!.deviceIfindex;
      assert.equal(ontoWire(bed, 0, tcp(world, other, nextPort(), 80, ['SYN']), wire).outcome, 'left to the kernel');
      // Somebody else's, behind the node's address: its answers find their way.
      const from = nextPort();
      assert.equal(ontoWire(bed, 0, tcp(node, world, from, 80, ['SYN']), wire).outcome, 'left to the kernel');
      assert.equal(fromWire(bed, 0, tcp(world, node, 80, from, ['SYN', 'ACK'])).outcome, 'left to the kernel');
      // Nobody on the wire has the node's address.
      assert.equal(fromWire(bed, 0, tcp(node, node, nextPort(), 80, ['SYN'])).reason, 'INVALID_IDENTITY');
      assert.equal(fromWire(bed, 0, tcp(bed.pod('a'), node, nextPort(), 80, ['SYN'])).reason, 'INVALID_SOURCE_IP');
    });

    test(`first fragments without ports are dropped, later ones wait for the first (${family})`, () => {
      bed.setPolicies([nothing]);
      const piece = (offset: number, more: boolean) =>
        udpPacket({
          from: world,
          to: node,
          six,
          sourcePort: 1,
          destinationPort: 53,
          payload: new Uint8Array(64),
          fragment: { id: nextPort(), offset, more },
        });
      assert.equal(fromWire(bed, 0, piece(0, true)).reason, 'POLICY_DENIED');
      assert.equal(fromWire(bed, 0, piece(1480, false)).outcome, 'left to the kernel');
      const tiny = tcp(world, node, nextPort(), 80, ['SYN']).slice(0, (six ? 54 : 34) + 8);
      if (six) tiny[19] = 8;
      else tiny[17] = 28;
      assert.equal(fromWire(bed, 0, tiny).outcome, 'dropped');
    });
  }
});

describe('host firewall, with services', { skip }, () => {
  let bed: Bed;
  let services: BedServices;
  before(async () => {
    bed = await createBed({
      pods: [{ name: 'a', node: 0 }],
      constants: { drop_reports_per_second, host_firewall: HostFirewall.HOST_FIREWALL_ENFORCE },
    });
    services = createBedServices(bed, { refuseDenied: true });
  });
  after(() => {
    services?.close();
    bed?.close();
  });

  for (const six of [false, true]) {
    const key = six ? 'ipv6' : 'ipv4';
    test(`a backend on the node's own network is judged as the client's (IPv${six ? 6 : 4})`, () => {
      const { ipv4, ipv6 } = bed.nodes[0]!;
      const front = { ipv4: '192.0.2.50', ipv6: '2001:db8:50::1', port: 80, targetPort: 8080 };
      services.add({ ...front, backends: [{ ipv4, ipv6, node: 0, ifindex: 0 }] });
      const ask = (sourcePort: number) =>
        fromWire(bed, 0, tcpPacket({ from: world, to: front, six, sourcePort, destinationPort: 80, flags: ['SYN'] }));
      bed.setPolicies([sshOnly]);
      const denied = ask(1000);
      assert.equal(denied.reason, 'POLICY_DENIED');
      assert.equal(denied.events[0]!.direction, 1);
      const allow = { ingress: [{ fromEntities: ['world'], toPorts: tcpPort(8080) }] };
      bed.setPolicies([sshOnly, nodePolicy('backend', allow)]);
      const sent = ask(1001);
      assert.equal(sent.outcome, 'sent on');
      assert.equal(readPacket(sent.data).destination, bed.nodes[0]![key]);
    });

    test(`what is for backends elsewhere is not the node's own (IPv${six ? 6 : 4})`, () => {
      const { ipv4, ipv6 } = bed.nodes[0]!;
      const front = { ipv4, ipv6, port: 31_000, targetPort: 8080 };
      services.add({ ...front, kind: 'NodePort', backends: [{ ...bed.nodes[1]!, node: 1, ifindex: 0 }] });
      bed.setPolicies([nothing]);
      const packet = tcpPacket({
        from: world,
        to: front,
        six,
        sourcePort: 1002,
        destinationPort: 31_000,
        flags: ['SYN'],
      });
      assert.equal(fromWire(bed, 0, packet).outcome, 'sent on');
    });

    test(`who is denied is answered where the operator wants it, and nobody outside is (IPv${six ? 6 : 4})`, () => {
      bed.setPolicies([nothing]);
      const node = bed.nodes[0]!;
      const ends = { six, sourcePort: 1003, destinationPort: 81, flags: ['SYN'] as TcpFlag[] };
      const answered = fromWire(bed, 0, tcpPacket({ from: world, to: node, ...ends }));
      assert.deepEqual([answered.outcome, answered.reason], ['sent on', 'POLICY_DENIED']);
      assert.deepEqual(readPacket(answered.data).destination, world[key]);
      const left = ontoWire(bed, 0, tcpPacket({ from: node, to: world, ...ends }));
      assert.deepEqual([left.outcome, left.reason], ['dropped', 'POLICY_DENIED']);
    });
  }
});

describe('host firewall, auditing', { skip }, () => {
  let bed: Bed;
  before(async () => {
    bed = await createBed({
      pods: [{ name: 'a', node: 0 }],
      constants: { drop_reports_per_second, host_firewall: HostFirewall.HOST_FIREWALL_AUDIT },
    });
  });
  after(() => bed?.close());

  for (const six of [false, true]) {
    test(`nothing is dropped, and what would be is reported in the policy's name (IPv${six ? 6 : 4})`, () => {
      const node = bed.nodes[0]!;
      const a = bed.pod('a');
      bed.setPolicies([nothing]);
      const tcp = (from: PacketEnd, to: PacketEnd, more = {}) =>
        tcpPacket({ from, to, six, sourcePort: 30_000, destinationPort: 80, flags: ['SYN'], ...more });
      const cases = [
        [fromWire(bed, 0, tcp(world, node)), 'ingress', 'left to the kernel'],
        [ontoWire(bed, 0, tcp(node, world, { destinationPort: 81 })), 'egress', 'left to the kernel'],
        [fromNode(bed, 0, tcp(node, a)), 'egress', 'sent on'],
        [fromPod(bed, a, tcp(a, node, { sourceMac: podMac(a.ifindex), destinationPort: 82 })), 'ingress', 'sent on'],
        [
          fromWire(bed, 0, icmpPacket({ from: world, to: node, six, type: six ? 130 : 13, rest: new Uint8Array(20) })),
          'ingress',
          'left to the kernel',
        ],
      ] as const;
      for (const [i, [{ outcome, events }, direction, wanted]] of cases.entries()) {
        assert.equal(outcome, wanted, `case ${i}`);
        const [event] = events;
        assert.equal(event?.type, EventType.EVENT_NEW, `case ${i}`);
        const flag = direction === 'ingress' ? EventFlags.EVENT_AUDITED_INGRESS : EventFlags.EVENT_AUDITED_EGRESS;
        assert.ok(event.flags & flag, `case ${i}`);
        const cookie = node.compiler!.cookie(event.cookie[direction === 'ingress' ? 1 : 0]!);
        assert.deepEqual([cookie?.verdict, cookie?.rules[0]?.name], ['default-deny', 'nothing']);
      }
      bed.setPolicies([sshOnly]);
      const allowed = fromWire(bed, 0, tcp(world, node, { destinationPort: 22 }));
      assert.equal(allowed.events[0]!.flags & ~EventFlags.EVENT_IPV6, 0);
    });
  }
});

describe('host firewall, off', { skip }, () => {
  let bed: Bed;
  before(async () => {
    bed = await createBed({ pods: [] });
  });
  after(() => bed?.close());

  test('the node is not judged, and its connections take no room', () => {
    bed.setPolicies([nothing]);
    const node = bed.nodes[0]!;
    const result = fromWire(
      bed,
      0,
      tcpPacket({ from: world, to: node, sourcePort: 1, destinationPort: 80, flags: ['SYN'] }),
    );
    assert.deepEqual([result.outcome, result.events.length, connections(node).length], ['left to the kernel', 0, 0]);
  });
});
