// From one event of the datapath to flows: one for each end of a new connection that is a pod of this node, one at the
// near end of everything else.
import { reservedIdentities } from '../../core/identity.ts';
import { DropReason, EVENT_SIZE, EventFlags, EventOffset, EventType } from '../../kernel/datapath.gen.ts';
import type { FlowEnds } from './flow-ends.ts';
import type { FlowRing, NewRow } from './flow-ring.ts';
import { FlowDirection, type FlowEnd, type FlowRules, type FlowService } from './flow-row.ts';
import type { WallClock } from './wall-clock.ts';

/** What is needed to make flows. */
export interface RecordOptions {
  readonly ring: FlowRing;
  readonly ends: FlowEnds;
  readonly clock: WallClock;
  readonly cookie: (cookie: number) => FlowRules | undefined;
  readonly services?: FlowServices;
}

/** Finds the Service that a connection was made to. */
export interface FlowServices {
  /** By the number of the frontend. */
  byFrontend(number: number): FlowService | undefined;
  /** By the ends of a connection of a pod of this node, whose socket was given its backend before there were packets. */
  bySocket(ends: SocketEnds): FlowService | undefined;
}

/** A connection by its real ends, in the form that the datapath remembers sockets by. */
export interface SocketEnds {
  /** Source and destination, 16 bytes each. */
  readonly addresses: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly protocol: number;
}

/** Takes one record of the events ring: fits `readRing`. Records of other sizes are counted and left out. */
export interface FlowRecorder {
  record(view: DataView, offset: number, lenBytes: number): void;
  readonly events: number;
  readonly malformed: number;
}

/** Makes the recorder. */
export function createFlowRecorder({ ring, ends, clock, cookie, services }: RecordOptions): FlowRecorder {
  let words: Int32Array = new Int32Array(0);
  let wordsOf: ArrayBufferLike | undefined;
  let wordsFrom = 0;
  let events = 0;
  let malformed = 0;
  // One object for all rows: the ring copies out of it.
  const row = { direction: 0, swapped: false } as NewRow;

  return {
    get events() {
      return events;
    },
    get malformed() {
      return malformed;
    },
    record(view, offset, lenBytes) {
      if (lenBytes !== EVENT_SIZE) {
        malformed++;
        return;
      }
      events++;
      if (wordsOf !== view.buffer || wordsFrom !== view.byteOffset) {
        words = new Int32Array(view.buffer, view.byteOffset, view.byteLength >> 2);
        wordsOf = view.buffer;
        wordsFrom = view.byteOffset;
      }
      const at = offset >> 2;
      const word = (field: number) => words[at + (field >> 2)]! >>> 0;
      const type = view.getUint8(offset + EventOffset.type);
      const flags = view.getUint8(offset + EventOffset.flags);
      const drop = type === EventType.EVENT_DROP;
      const reason = drop ? view.getUint8(offset + EventOffset.reason) : 0;
      const monoNs = word(EventOffset.timeNs) + word(EventOffset.timeNs + 4) * 2 ** 32;
      const createdNs = word(EventOffset.createdNs) + word(EventOffset.createdNs + 4) * 2 ** 32;
      const time = clock.at(monoNs);
      row.seconds = time.seconds;
      row.nanos = time.nanos;
      row.durationNs = createdNs === 0 ? 0 : Math.max(0, monoNs - createdNs);
      const identities = [word(EventOffset.identity), word(EventOffset.identity + 4)] as const;
      row.originator = ends.find(words, at + (EventOffset.src >> 2), identities[0]);
      row.responder = ends.find(words, at + (EventOffset.dst >> 2), identities[1]);
      row.sourceAddress = undefined;
      // Whoever forges an address is still known by the device that the packet came from.
      if (reason === DropReason.DROP_INVALID_SOURCE_IP || reason === DropReason.DROP_INVALID_SOURCE_MAC) {
        const sender = ends.byIfindex(word(EventOffset.ifindex));
        if (sender !== undefined) {
          row.sourceAddress = row.originator.address;
          row.originator = sender;
        }
      }
      row.service = services && serviceOf(services, view, offset, type, word(EventOffset.service), row.originator);
      const [egressCookie, ingressCookie] = [word(EventOffset.cookie), word(EventOffset.cookie + 4)];
      row.egressRules = egressCookie === 0 ? undefined : cookie(egressCookie);
      row.ingressRules = ingressCookie === 0 ? undefined : cookie(ingressCookie);
      // A denial is of a connection, so it is shown the way the connection goes. Other drops are of a packet.
      row.swapped =
        drop &&
        reason !== DropReason.DROP_POLICY_DENIED &&
        (flags & EventFlags.EVENT_REPLY_PACKET) !== 0 &&
        identities[0] + identities[1] !== 0;

      if (drop) {
        row.direction =
          view.getUint8(offset + EventOffset.direction) ||
          (isLocal(row.swapped ? row.responder : row.originator) ? FlowDirection.egress : FlowDirection.ingress);
        ring.push(words, at, row);
        return;
      }
      // What the node itself begins is seen from it, unless a pod of it is there to see it arrive.
      const leaves =
        isLocal(row.originator) ||
        (identities[0] === reservedIdentities.host &&
          (!isLocal(row.responder) || (flags & EventFlags.EVENT_AUDITED_EGRESS) !== 0));
      row.direction = leaves ? FlowDirection.egress : FlowDirection.ingress;
      ring.push(words, at, row);
      if (type !== EventType.EVENT_NEW || !leaves || !isLocal(row.responder)) return;
      row.direction = FlowDirection.ingress;
      ring.push(words, at, row);
    },
  };
}

function serviceOf(
  services: FlowServices,
  view: DataView,
  offset: number,
  type: number,
  frontend: number,
  originator: FlowEnd,
): FlowService | undefined {
  if (frontend !== 0) return services.byFrontend(frontend);
  // A look at what the sockets did costs a system call: reports in between do without.
  if (type === EventType.EVENT_ACTIVE || !isLocal(originator)) return undefined;
  return services.bySocket({
    addresses: new Uint8Array(view.buffer, view.byteOffset + offset + EventOffset.src, 32),
    sourcePort: view.getUint16(offset + EventOffset.sport, false),
    destinationPort: view.getUint16(offset + EventOffset.dport, false),
    protocol: view.getUint8(offset + EventOffset.protocol),
  });
}

/** Whether an end is a pod of this node. */
function isLocal(end: FlowEnd): boolean {
  return end.endpointId > 0;
}
