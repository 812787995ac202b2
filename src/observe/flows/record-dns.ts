// From a message of DNS on the wire to a flow, and to what names mean for the pod that asked.

import {
  DNS_EVENT_SIZE,
  DnsEventOffset,
  EVENT_SIZE,
  EventFlags,
  EventOffset,
  EventType,
} from '../../kernel/datapath.gen.ts';
import type { DnsNames } from '../dns/dns-names.ts';
import { parseDns, parseDnsStream } from '../dns/parse-dns.ts';
import type { NewRow } from './flow-ring.ts';
import { FlowDirection } from './flow-row.ts';
import type { RecordOptions } from './record-flows.ts';

/** Names that the pods of this node were told. */
export interface DnsMemory {
  names(endpointId: number, address: string): readonly string[];
  readonly messages: DnsNames;
}

const portDns = 53;
/** Of a message as much as the record has of it. */
const payloadBytes = DNS_EVENT_SIZE - DnsEventOffset.payload;
const TCP = 6;

/** Takes one record; false when it cannot be read. Of a stream what is no message's beginning is passed over. */
export function createDnsRecorder(options: RecordOptions): { record(view: DataView, offset: number): boolean } {
  const { ring, ends, clock, dns, processes, sockets } = options;
  // The record as an event: the ring keeps events.
  const words = new Int32Array(EVENT_SIZE / 4);
  const event = new DataView(words.buffer);
  const row = {} as NewRow;

  return {
    record(view, offset) {
      const sport = view.getUint16(offset + DnsEventOffset.sport);
      const dport = view.getUint16(offset + DnsEventOffset.dport);
      const whole = view.getUint32(offset + DnsEventOffset.len, true);
      const length = Math.min(whole, payloadBytes);
      const payload = new Uint8Array(view.buffer, view.byteOffset + offset + DnsEventOffset.payload, length);
      const protocol = view.getUint8(offset + DnsEventOffset.protocol);
      const message = protocol === TCP ? parseDnsStream(payload) : parseDns(payload);
      if (message === undefined) return protocol === TCP;
      const atNs =
        view.getUint32(offset + DnsEventOffset.timeNs, true) +
        view.getUint32(offset + DnsEventOffset.timeNs + 4, true) * 2 ** 32;
      // What comes from the port is an answer, whatever it says; between two servers the message itself decides.
      const answer = sport === portDns && (dport !== portDns || message.response);
      words.fill(0);
      const bytes = new Uint8Array(words.buffer);
      const copy = (from: number, to: number) =>
        bytes.set(new Uint8Array(view.buffer, view.byteOffset + offset + from, 16), to);
      copy(answer ? DnsEventOffset.dst : DnsEventOffset.src, EventOffset.src);
      copy(answer ? DnsEventOffset.src : DnsEventOffset.dst, EventOffset.dst);
      event.setUint16(EventOffset.sport, answer ? dport : sport);
      event.setUint16(EventOffset.dport, answer ? sport : dport);
      event.setUint8(EventOffset.type, EventType.EVENT_DNS);
      event.setUint8(EventOffset.protocol, protocol);
      const { seconds, nanos } = clock.at(atNs);
      row.seconds = seconds;
      row.nanos = nanos;
      row.durationNs = 0;
      row.originator = ends.find(words, EventOffset.src >> 2, 0);
      row.responder = ends.find(words, EventOffset.dst >> 2, 0);
      if (row.originator.address.includes(':')) event.setUint8(EventOffset.flags, EventFlags.EVENT_IPV6);
      row.service = options.services?.bySocket({
        addresses: bytes.subarray(EventOffset.src, EventOffset.src + 32),
        sourcePort: event.getUint16(EventOffset.sport),
        destinationPort: event.getUint16(EventOffset.dport),
        protocol,
      });
      row.swapped = answer;
      row.sourceAddress = undefined;
      row.tcp = undefined;
      row.egressRules = undefined;
      row.ingressRules = undefined;
      row.direction = row.originator.ifindex >= 0 ? FlowDirection.egress : FlowDirection.ingress;
      const owner = (ifindex: number, side: 0 | 1) => {
        const socket = ifindex < 0 ? undefined : sockets?.find(event, 0, ifindex, side);
        return socket && processes?.find(socket.startNs, socket.pid, socket.exec, socket.uid);
      };
      row.originatorProcess = owner(row.originator.ifindex, 0);
      row.responderProcess = owner(row.responder.ifindex, 1);
      row.names = dns?.names(row.originator.endpointId, row.responder.address) ?? [];
      const key = `${row.originator.address} ${event.getUint16(EventOffset.sport)} ${row.responder.address}`;
      let latencyNs = 0;
      if (!answer) dns?.messages.asked(key, message, atNs);
      else {
        const tookNs = dns?.messages.answered(key, message, atNs);
        latencyNs = tookNs ?? 0;
        if (message.rcode === 0 && tookNs !== undefined)
          dns?.messages.learn(row.originator.endpointId, message, Date.now());
      }
      row.dns = {
        response: answer,
        query: message.query,
        types: [message.queryType],
        rcode: message.rcode,
        addresses: message.addresses,
        cnames: message.cnames,
        recordTypes: message.recordTypes,
        ttl: message.ttl,
        latencyNs,
      };
      ring.push(words, 0, row);
      return true;
    },
  };
}
