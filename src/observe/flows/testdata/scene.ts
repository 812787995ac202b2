// A small scene for tests: two pods of this node, one of another, the world, and events between them as the datapath
// would report them.

import { fromBinary } from '@bufbuild/protobuf';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { parseAddress } from '../../../core/ip.ts';
import type { AddressRow, CookieRow, EndpointRow, IdentityRow, NodeRow, PolicyObjectRow } from '../../../core/rows.ts';
import { createTable } from '../../../core/table.ts';
import { type Event, EventFlags, EventType, event } from '../../../kernel/datapath.gen.ts';
import { createFlowEncoder } from '../encode-flow.ts';
import { createFlowEnds } from '../flow-ends.ts';
import type { FlowContext } from '../flow-message.ts';
import { createFlowRing, type NewRow } from '../flow-ring.ts';
import type { FlowRow } from '../flow-row.ts';
import { createLossLog } from '../loss-log.ts';
import { createFlowRecorder, type FlowServices } from '../record-flows.ts';
import { createWallClock } from '../wall-clock.ts';

export const addresses = {
  web: '10.244.0.1',
  web6: 'fd44::1',
  db: '10.244.0.2',
  far: '10.244.1.9',
  host: '10.9.0.1',
  world: '198.51.100.7',
} as const;

const pod = (address: string, name: string, identity: number, endpointId: number): AddressRow => ({
  address,
  identity,
  kind: 'pod',
  namespace: 'shop',
  pod: name,
  node: endpointId > 0 ? 'node1' : 'node2',
  namedPorts: [],
  ifindex: endpointId === 0 ? 0 : 100 + endpointId,
  endpointId,
  workload: { kind: name === 'db-0' ? 'StatefulSet' : 'Deployment', name: name.slice(0, name.indexOf('-')) },
});

const allowCookie: CookieRow = {
  cookie: 7,
  verdict: 'allow',
  rules: [
    { kind: 'NetworkPolicy', namespace: 'shop', name: 'db-from-web', uid: 'u1', direction: 'ingress', ruleIndex: 0 },
  ],
};
export const denyCookie: CookieRow = {
  cookie: 8,
  verdict: 'default-deny',
  rules: [
    { kind: 'NetworkPolicy', namespace: 'shop', name: 'default-deny', uid: 'u2', direction: 'ingress', ruleIndex: -1 },
  ],
};

/** The bytes of an address as the datapath has them. */
export function addressBytes(text: string): Uint8Array {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  if (parsed.value.family === 6) return parsed.value.bytes;
  return Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...parsed.value.bytes]);
}

const nobody = { startNs: 0n, pid: 0, exec: 0, uid: 0 };

/** An event with what every event has; `from` and `to` are addresses in text. */
export function makeEvent(given: Partial<Event> & { from: string; to: string }): Event {
  const { from, to, ...rest } = given;
  return {
    timeNs: 5_000_000_000n,
    bytes: [74n, 0n],
    packets: [1n, 0n],
    createdNs: 5_000_000_000n,
    src: addressBytes(from),
    dst: addressBytes(to),
    identity: [0, 0],
    cookie: [0, 0],
    ifindex: 101,
    suppressed: 0,
    service: 0,
    who: [nobody, nobody],
    sport: 43210,
    dport: 5432,
    type: EventType.EVENT_NEW,
    protocol: 6,
    reason: 0,
    direction: 0,
    flags: from.includes(':') ? EventFlags.EVENT_IPV6 : 0,
    tcpFlags: Uint8Array.from([2, 0]),
    icmpType: 0,
    icmpCode: 0,
    ...rest,
  };
}

/** Tables, ring and recorder over them. */
export function createScene(
  capacity = 64,
  services?: FlowServices,
  onRow?: (words: Int32Array, from: number, row: NewRow, seq: number) => void,
) {
  const tables = {
    addresses: createTable<AddressRow>({ name: 'addresses', key: (row) => row.address }),
    identities: createTable<IdentityRow>({ name: 'identities', key: (row) => row.id }),
    endpoints: createTable<EndpointRow>({ name: 'endpoints', key: (row) => row.id }),
    policies: createTable<PolicyObjectRow>({ name: 'policies', key: (row) => row.key }),
    nodes: createTable<NodeRow>({ name: 'nodes', key: (row) => row.name }),
  };
  tables.addresses.upsert([
    pod(addresses.web, 'web-1', 256, 1),
    pod(addresses.web6, 'web-1', 256, 1),
    pod(addresses.db, 'db-0', 257, 2),
    pod(addresses.far, 'cart-7', 258, 0),
    { address: addresses.host, identity: 1, kind: 'host', node: 'node1', namedPorts: [], ifindex: 0, endpointId: 0 },
  ]);
  tables.identities.upsert([
    { id: 256, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] },
    { id: 257, labels: ['k8s:app=db', 'k8s:io.kubernetes.pod.namespace=shop'] },
    { id: 258, labels: ['k8s:app=cart', 'k8s:io.kubernetes.pod.namespace=shop'] },
  ]);
  const cookies = new Map([allowCookie, denyCookie].map((row) => [row.cookie, row]));
  const cookie = (number: number) => cookies.get(number);
  const now = { ms: 1_000_000 };
  const ends = createFlowEnds(tables, () => now.ms);
  const ring = createFlowRing(capacity, cookie, onRow);
  // Monotonic time 0 is 2026-01-01.
  const clock = createWallClock(
    () => 0,
    () => Date.UTC(2026, 0, 1),
  );
  const recorder = createFlowRecorder({ ring, ends, clock, cookie, services });
  const bytes = new Uint8Array(event.size);
  const context: FlowContext = {
    nodeName: 'node1',
    version: 'weir v0',
    run: '0123456789abcdef',
    deviceName: (ifindex) => (ifindex === 101 ? 'weir101' : ''),
  };
  const encoder = createFlowEncoder(context);
  return {
    tables,
    cookies,
    now,
    ends,
    ring,
    recorder,
    losses: createLossLog(),
    context,
    /** Records events as the reader of the kernel's ring would. */
    record(...events: Event[]) {
      for (const each of events) {
        bytes.set(event.encode(each));
        recorder.record(new DataView(bytes.buffer), 0, bytes.length);
      }
      ring.announce();
    },
    /** A flow as a client of the contract reads it. */
    message: (row: FlowRow) => fromBinary(FlowSchema, encoder.flow(row)),
    rows: () => Array.from({ length: ring.next - ring.oldest }, (_, i) => ring.get(ring.oldest + i)),
  };
}
