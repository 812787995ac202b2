// Runs packets through the real programs of a bed, and tells what came of them.
import {
  Counter,
  type CtEntry,
  DNS_EVENT_SIZE,
  type DnsEvent,
  datapathMaps,
  dnsEvent,
  dropReasonName,
  EVENT_SIZE,
  type Event,
  event,
} from '../../src/kernel/datapath.gen.ts';
import { macBytes } from '../../src/kernel/links.ts';
import { withNetns } from '../../src/kernel/netns.ts';
import { readRing } from '../../src/kernel/ring-buffer.ts';
import { testRun } from '../../src/kernel/test-run.ts';
import { typedMap } from '../../src/kernel/typed-map.ts';
import type { Bed, BedNode, BedPod } from '../../test/bed/bed.ts';

/** What a hook did with a packet. */
export type Outcome = 'sent on' | 'dropped' | 'left to the kernel';

/** A packet's outcome, the frame afterwards, and the events it made. */
export interface ProbeResult {
  readonly outcome: Outcome;
  readonly data: Uint8Array;
  readonly events: readonly Event[];
  /** Messages of DNS that were let through. */
  readonly dns: readonly DnsEvent[];
  /** The reason of the drop event, if there is one. */
  readonly reason?: string;
}

const outcomes: Record<number, Outcome> = {
  [-1]: 'left to the kernel',
  0: 'left to the kernel',
  2: 'dropped',
  7: 'sent on',
};

/** Everything in the ring since the last look; messages of DNS go into `dns`. */
export function takeEvents(node: BedNode, dns: DnsEvent[] = []): Event[] {
  const events: Event[] = [];
  readRing(node.datapath!.ring, (view, offset, lenBytes) => {
    if (lenBytes === DNS_EVENT_SIZE) {
      dns.push(dnsEvent.decodeFrom(view, offset));
      return;
    }
    if (lenBytes !== EVENT_SIZE) throw new Error(`an event of ${lenBytes} bytes`);
    events.push(event.decodeFrom(view, offset));
  });
  return events;
}

function send(node: BedNode, program: string, ifindex: number, packet: Uint8Array, ingressIfindex = 0): ProbeResult {
  takeEvents(node);
  const { retval, data } = withNetns(node.netnsFd, () =>
    testRun(node.datapath!.programFd(program), packet, {
      ctxSkb: { ifindex, ...(ingressIfindex !== 0 && { ingressIfindex }) },
    }),
  );
  const outcome = outcomes[retval];
  if (outcome === undefined) throw new Error(`the program answered ${retval}`);
  const dns: DnsEvent[] = [];
  const events = takeEvents(node, dns);
  const drop = events.find((each) => each.type === 4);
  return {
    outcome,
    data,
    events,
    dns,
    ...(drop === undefined
      ? {}
      : { reason: dropReasonName[drop.reason]?.replace(/^DROP_/, '') ?? String(drop.reason) }),
  };
}

/** A packet that a pod sends. */
export function fromPod(bed: Bed, pod: BedPod, packet: Uint8Array): ProbeResult {
  return send(bed.nodes[pod.node]!, 'pod', pod.ifindex, packet);
}

/** A packet that arrives over the wire at a node, in a frame for it. */
export function fromWire(bed: Bed, node: number, packet: Uint8Array): ProbeResult {
  return asFramed(bed, node, framedFor(bed.nodes[node]!, packet));
}

/** A frame that arrives over the wire at a node, whoever it is for. */
export function asFramed(bed: Bed, node: number, frame: Uint8Array): ProbeResult {
  return send(bed.nodes[node]!, 'device', bed.nodes[node]!.deviceIfindex, frame);
}

/** The packet in a frame for the node's device, unless it is for many. */
export function framedFor(node: BedNode, packet: Uint8Array): Uint8Array {
  const frame = Uint8Array.from(packet);
  if ((frame[0]! & 1) === 0) frame.set(macBytes(node.deviceMac));
  return frame;
}

/** A packet that leaves a node over the wire: of the node's own stack, or forwarded from the device `from`. */
export function ontoWire(bed: Bed, node: number, packet: Uint8Array, from = 0): ProbeResult {
  return send(bed.nodes[node]!, 'guard_out', bed.nodes[node]!.deviceIfindex, packet, from);
}

/** A packet that the node's own stack sends to its pods. */
export function fromNode(bed: Bed, node: number, packet: Uint8Array): ProbeResult {
  return send(bed.nodes[node]!, 'node', bed.nodes[node]!.devices!.netIfindex, packet);
}

/** A counter of the datapath, over all CPUs. */
export function counter(node: BedNode, name: keyof typeof Counter): number {
  const values = typedMap(node.datapath!.map('counters'), datapathMaps.counters).lookupPerCpu(Counter[name]) ?? [];
  return Number(values.reduce((sum, each) => sum + each, 0n));
}

/** All tracked connections of both families. */
export function connections(node: BedNode): CtEntry[] {
  return [
    ...typedMap(node.datapath!.map('ct4'), datapathMaps.ct4).entries(),
    ...typedMap(node.datapath!.map('ct6'), datapathMaps.ct6).entries(),
  ].map((entry) => entry.value);
}
