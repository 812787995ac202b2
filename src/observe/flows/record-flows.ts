// From one event of the datapath to flows: one for each end of a new connection that is a pod of this node, one at the
// near end of everything else.
import { reservedIdentities } from '../../core/identity.ts';
import {
  DNS_EVENT_SIZE,
  DropReason,
  EVENT_SIZE,
  EventFlags,
  EventOffset,
  EventType,
  PROCESS_REF_SIZE,
  ProcessRefOffset,
} from '../../kernel/datapath.gen.ts';
import type { ProcessRow } from '../processes/process-row.ts';
import type { FlowEnds } from './flow-ends.ts';
import type { FlowRing, NewRow } from './flow-ring.ts';
import { FlowDirection, type FlowEnd, type FlowRules, type FlowService } from './flow-row.ts';
import type { FlowSocket, FlowSockets } from './flow-sockets.ts';
import { createDnsRecorder, type DnsMemory } from './record-dns.ts';
import type { WallClock } from './wall-clock.ts';

/** What is needed to make flows. */
export interface RecordOptions {
  readonly ring: FlowRing;
  readonly ends: FlowEnds;
  readonly clock: WallClock;
  readonly cookie: (cookie: number) => FlowRules | undefined;
  readonly services?: FlowServices;
  readonly processes?: FlowProcesses;
  readonly sockets?: FlowSockets;
  readonly dns?: DnsMemory;
}

/** Finds processes. */
export interface FlowProcesses {
  find(startNs: number, pid: number, exec: number, uid: number): ProcessRow | undefined;
}

/** Finds the Service that a connection was made to. */
export interface FlowServices {
  /** By the number of the frontend. */
  byFrontend(number: number): FlowService | undefined;
  /** By the ends of a connection of a pod of this node, whose socket was given its backend before there were packets. */
  bySocket(ends: SocketEnds): FlowService | undefined;
  /**
   * Asked before `bySocket`, which costs a system call: whether a Service may have sent a connection to the address of 16 bytes
   * at `words[at..at+3]`. Without it every connection is looked for.
   */
  mayServe?(words: Int32Array, at: number, port: number): boolean;
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

const TCP = 6;
const UDP = 17;
/** Where an event names the process of the originator, and that of the responder. */
const whoAt = [EventOffset.who, EventOffset.who + PROCESS_REF_SIZE] as const;

/** Makes the recorder. */
export function createFlowRecorder(options: RecordOptions): FlowRecorder {
  const { ring, ends, clock, cookie, services, processes, sockets } = options;
  let words: Int32Array = new Int32Array(0);
  let wordsOf: ArrayBufferLike | undefined;
  let wordsFrom = 0;
  let events = 0;
  let malformed = 0;
  // One object for all rows: the ring copies out of it.
  const row = { direction: 0, swapped: false, names: noNames, tcp: undefined, dns: undefined } as unknown as NewRow;
  const dns = createDnsRecorder(options);

  /** What the event under way says in four bytes. */
  let at = 0;
  const word = (field: number) => words[at + (field >> 2)]! >>> 0;

  /** The socket at one end of an event. */
  function socketAt(view: DataView, offset: number, side: 0 | 1): FlowSocket | undefined {
    const { ifindex } = side === 0 ? row.originator : row.responder;
    return sockets === undefined || ifindex < 0 ? undefined : sockets.find(view, offset, ifindex, side);
  }

  function ofEvent(side: 0 | 1): ProcessRow | undefined {
    const field = side === 0 ? whoAt[0] : whoAt[1];
    const pid = word(field + ProcessRefOffset.pid);
    if (pid === 0) return undefined;
    const startNs = word(field) + word(field + 4) * 2 ** 32;
    return processes?.find(startNs, pid, word(field + ProcessRefOffset.exec), word(field + ProcessRefOffset.uid));
  }

  function ofSocket(socket: FlowSocket | undefined): ProcessRow | undefined {
    return socket && processes?.find(socket.startNs, socket.pid, socket.exec, socket.uid);
  }

  /** Names the processes of both ends. Sockets are looked for where they know more than the event: that is a system call. */
  function nameProcesses(view: DataView, offset: number, type: number, protocol: number): void {
    const named = [word(whoAt[0] + ProcessRefOffset.pid) !== 0, word(whoAt[1] + ProcessRefOffset.pid) !== 0] as const;
    if (protocol === TCP) {
      const ends = type === EventType.EVENT_END;
      // At the end a socket knows what TCP measured, and who worked on it last. One of the two is enough to have measured.
      const near = ends ? socketAt(view, offset, 0) : undefined;
      const far = ends && (near === undefined || !named[1]) ? socketAt(view, offset, 1) : undefined;
      row.originatorProcess = named[0] ? ofEvent(0) : ofSocket(near);
      row.responderProcess = named[1] ? ofEvent(1) : ofSocket(far);
      const measured = near ?? far;
      if (measured?.measured) row.tcp = measured.tcp;
      return;
    }
    const begins = type === EventType.EVENT_NEW;
    const looks = type !== EventType.EVENT_ACTIVE;
    const near = begins || (looks && !named[0]) ? socketAt(view, offset, 0) : undefined;
    const far = looks && !named[1] ? socketAt(view, offset, 1) : undefined;
    // A datagram socket that was connected is named a moment after its first packet: until then the port's last owner was.
    const first = begins ? ofSocket(near) : undefined;
    row.originatorProcess = first ?? (named[0] ? ofEvent(0) : ofSocket(near));
    row.responderProcess = named[1] ? ofEvent(1) : ofSocket(far);
  }

  return {
    get events() {
      return events;
    },
    get malformed() {
      return malformed;
    },
    record(view, offset, lenBytes) {
      if (lenBytes === DNS_EVENT_SIZE) {
        events++;
        if (!dns.record(view, offset)) malformed++;
        return;
      }
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
      at = offset >> 2;
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
      const originatorIdentity = word(EventOffset.identity);
      const responderIdentity = word(EventOffset.identity + 4);
      row.originator = ends.find(words, at + (EventOffset.src >> 2), originatorIdentity);
      row.responder = ends.find(words, at + (EventOffset.dst >> 2), responderIdentity);
      row.sourceAddress = undefined;
      // Whoever forges an address is still known by the device that the packet came from.
      if (reason === DropReason.DROP_INVALID_SOURCE_IP || reason === DropReason.DROP_INVALID_SOURCE_MAC) {
        const sender = ends.byIfindex(word(EventOffset.ifindex));
        if (sender !== undefined) {
          row.sourceAddress = row.originator.address;
          row.originator = sender;
        }
      }
      row.service = services && serviceOf(services, words, view, offset, type, row.originator);
      const egressCookie = word(EventOffset.cookie);
      const ingressCookie = word(EventOffset.cookie + 4);
      row.egressRules = egressCookie === 0 ? undefined : cookie(egressCookie);
      row.ingressRules = ingressCookie === 0 ? undefined : cookie(ingressCookie);
      const protocol = view.getUint8(offset + EventOffset.protocol);
      row.originatorProcess = undefined;
      row.responderProcess = undefined;
      row.tcp = undefined;
      if (protocol === TCP || protocol === UDP) nameProcesses(view, offset, type, protocol);
      row.names = options.dns?.names(row.originator.endpointId, row.responder.address) ?? noNames;
      // A denial is of a connection, so it is shown the way the connection goes. Other drops are of a packet.
      row.swapped =
        drop &&
        reason !== DropReason.DROP_POLICY_DENIED &&
        (flags & EventFlags.EVENT_REPLY_PACKET) !== 0 &&
        originatorIdentity + responderIdentity !== 0;

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
        (originatorIdentity === reservedIdentities.host &&
          (!isLocal(row.responder) || (flags & EventFlags.EVENT_AUDITED_EGRESS) !== 0));
      row.direction = leaves ? FlowDirection.egress : FlowDirection.ingress;
      ring.push(words, at, row);
      if (type !== EventType.EVENT_NEW || !leaves || !isLocal(row.responder)) return;
      row.direction = FlowDirection.ingress;
      ring.push(words, at, row);
    },
  };
}

const noNames: readonly string[] = [];

function serviceOf(
  services: FlowServices,
  words: Int32Array,
  view: DataView,
  offset: number,
  type: number,
  originator: FlowEnd,
): FlowService | undefined {
  const frontend = view.getUint32(offset + EventOffset.service, true);
  if (frontend !== 0) return services.byFrontend(frontend);
  // A look at what the sockets did costs a system call: reports in between do without, and those to nobody's backend.
  if (type === EventType.EVENT_ACTIVE || !isLocal(originator)) return undefined;
  const destinationPort = view.getUint16(offset + EventOffset.dport, false);
  if (services.mayServe?.(words, (offset + EventOffset.dst) >> 2, destinationPort) === false) return undefined;
  return services.bySocket({
    addresses: new Uint8Array(view.buffer, view.byteOffset + offset + EventOffset.src, 32),
    sourcePort: view.getUint16(offset + EventOffset.sport, false),
    destinationPort,
    protocol: view.getUint8(offset + EventOffset.protocol),
  });
}

/** Whether an end is a pod of this node. */
function isLocal(end: FlowEnd): boolean {
  return end.endpointId > 0;
}
