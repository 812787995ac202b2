import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { DropReason, EndCause, EventFlags, EventType } from '../../kernel/datapath.gen.ts';
import type { SocketEnds } from './record-flows.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const { web, web6, db, far, host, world } = addresses;

test('a new connection between two pods of the node gives a flow at each end', () => {
  const scene = createScene();
  scene.record(makeEvent({ from: web, to: db, identity: [256, 257], cookie: [0, 7] }));
  const [egress, ingress] = scene.rows().map((row) => scene.message(row));
  assert.equal(scene.ring.next, 2);
  assert.equal(egress!.trafficDirection, 2);
  assert.equal(ingress!.trafficDirection, 1);
  assert.equal(ingress!.traceObservationPoint, 101);
  assert.deepEqual(ingress!.eventType, egress!.eventType && { ...egress!.eventType, subType: 0 });
  assert.notEqual(egress!.uuid, ingress!.uuid);
});

test('a flow is all that the contract can say of an event', () => {
  const scene = createScene();
  scene.record(makeEvent({ from: far, to: db, identity: [258, 257], cookie: [0, 7] }));
  assert.equal(scene.ring.next, 1);
  assert.deepEqual(toJson(FlowSchema, scene.message(scene.ring.get(0)), { useProtoFieldName: true }), {
    time: '2026-01-01T00:00:05Z',
    uuid: '01234567-89ab-8cde-8000-000000000000',
    emitter: { name: 'Weir', version: 'weir v0' },
    verdict: 'FORWARDED',
    IP: { source: far, destination: db, ipVersion: 'IPv4' },
    l4: { TCP: { source_port: 43210, destination_port: 5432, flags: { SYN: true } } },
    source: {
      identity: 258,
      cluster_name: 'default',
      namespace: 'shop',
      labels: ['k8s:app=cart', 'k8s:io.kubernetes.pod.namespace=shop'],
      pod_name: 'cart-7',
      workloads: [{ name: 'cart', kind: 'Deployment' }],
    },
    destination: {
      ID: 2,
      identity: 257,
      cluster_name: 'default',
      namespace: 'shop',
      labels: ['k8s:app=db', 'k8s:io.kubernetes.pod.namespace=shop'],
      pod_name: 'db-0',
      workloads: [{ name: 'db', kind: 'StatefulSet' }],
    },
    Type: 'L3_L4',
    node_name: 'node1',
    is_reply: false,
    interface: { index: 101, name: 'weir101' },
    event_type: { type: 4 },
    traffic_direction: 'INGRESS',
    trace_observation_point: 'TO_ENDPOINT',
    trace_reason: 'NEW',
    ingress_allowed_by: [
      {
        name: 'db-from-web',
        namespace: 'shop',
        kind: 'NetworkPolicy',
        labels: [
          'k8s:io.cilium.k8s.policy.derived-from=NetworkPolicy',
          'k8s:io.cilium.k8s.policy.name=db-from-web',
          'k8s:io.cilium.k8s.policy.namespace=shop',
          'k8s:io.cilium.k8s.policy.uid=u1',
          'weir:rule=ingress[0]',
        ],
      },
    ],
    Summary: 'TCP Flags: SYN',
  });
});

test('a denial names the policies that isolate, in the direction whose policy denied, the way the connection goes', () => {
  const scene = createScene();
  const denied = {
    type: EventType.EVENT_DROP,
    reason: DropReason.DROP_POLICY_DENIED,
    direction: 1,
    cookie: [0, 8],
    identity: [256, 257],
  };
  scene.record(
    makeEvent({ from: web, to: db, ...denied }),
    makeEvent({ from: web, to: db, ...denied, flags: EventFlags.EVENT_REPLY_PACKET }),
  );
  for (const row of scene.rows()) {
    const flow = scene.message(row);
    assert.equal(flow.verdict, 2);
    assert.equal(flow.dropReason, 133);
    assert.equal(flow.dropReasonDesc, 133);
    assert.equal(flow.trafficDirection, 1);
    assert.equal(flow.eventType?.type, 1);
    assert.deepEqual(
      flow.ingressDeniedBy.map((each) => each.name),
      ['default-deny'],
    );
    assert.ok(!flow.ingressDeniedBy[0]!.labels.some((label) => label.startsWith('weir:rule=')));
    assert.deepEqual(flow.egressDeniedBy, []);
    assert.equal(flow.source?.podName, 'web-1');
  }
});

test('a drop of an answer is shown from the one who sent it', () => {
  const scene = createScene();
  scene.record(
    makeEvent({
      from: web,
      to: db,
      type: EventType.EVENT_DROP,
      reason: DropReason.DROP_TTL_EXCEEDED,
      identity: [256, 257],
      flags: EventFlags.EVENT_REPLY_PACKET,
    }),
  );
  const row = scene.ring.get(0);
  assert.deepEqual(
    [row.source.pod, row.sourcePort, row.destination.pod, row.destinationPort, row.reply],
    ['db-0', 5432, 'web-1', 43210, true],
  );
});

test('a forged source is shown as the pod that sent it, under the address it claims', () => {
  const scene = createScene();
  scene.record(
    makeEvent({
      from: world,
      to: db,
      type: EventType.EVENT_DROP,
      reason: DropReason.DROP_INVALID_SOURCE_IP,
      ifindex: 101,
    }),
  );
  const flow = scene.message(scene.ring.get(0));
  assert.equal(flow.source?.podName, 'web-1');
  assert.equal(flow.IP?.source, world);
});

test('reports carry what went over the connection, and how it ended', () => {
  const scene = createScene();
  const counted = {
    timeNs: 7_000_000_000n,
    createdNs: 5_500_000_000n,
    packets: [3n, 2n],
    bytes: [300n, 5_000_000_000n],
    tcpFlags: Uint8Array.from([0x1b, 0x12]),
  };
  scene.record(
    makeEvent({ from: web, to: db, type: EventType.EVENT_ACTIVE, ...counted }),
    makeEvent({ from: web, to: db, type: EventType.EVENT_END, reason: EndCause.END_CLOSED, ...counted }),
    makeEvent({ from: web, to: db, type: EventType.EVENT_END, reason: EndCause.END_RESET, ...counted }),
  );
  const flows = scene.rows().map((row) => scene.message(row));
  assert.deepEqual(
    flows.map((flow) => flow.Summary),
    [
      'TCP Flags: ACK, PSH; open for 1.500 s; sent 3 packets, 300 bytes; received 2 packets, 5000000000 bytes',
      'TCP Flags: ACK, FIN; closed after 1.500 s; sent 3 packets, 300 bytes; received 2 packets, 5000000000 bytes',
      'TCP Flags: RST; reset after 1.500 s; sent 3 packets, 300 bytes; received 2 packets, 5000000000 bytes',
    ],
  );
  assert.deepEqual(toJson(StructSchema, anyUnpack(flows[1]!.extensions!, StructSchema)!), {
    report: 'end',
    end_cause: 'closed',
    packets_sent: 3,
    bytes_sent: 300,
    packets_received: 2,
    bytes_received: 5_000_000_000,
    duration_ms: 1500,
  });
});

test('what policies in dry run would deny is forwarded, and said', () => {
  const scene = createScene();
  scene.record(makeEvent({ from: web, to: far, flags: EventFlags.EVENT_STAGED_EGRESS_DENY }));
  const flow = scene.message(scene.ring.get(0));
  assert.equal(flow.verdict, 1);
  assert.match(flow.Summary, /staged policies would deny egress/);
  assert.deepEqual(toJson(StructSchema, anyUnpack(flow.extensions!, StructSchema)!), { staged_denied: ['egress'] });
});

test('ends are named in both families; the host and the world by their reserved labels', () => {
  const scene = createScene();
  scene.record(
    makeEvent({ from: web6, to: 'fd00::99' }),
    makeEvent({ from: host, to: db, identity: [1, 257] }),
    makeEvent({ from: web, to: world, identity: [256, 9], protocol: 1, icmpType: 8 }),
  );
  const [six, fromHost, toWorld] = scene.rows().map((row) => scene.message(row));
  assert.equal(six!.source?.podName, 'web-1');
  assert.deepEqual(
    six!.source?.workloads.map((each) => `${each.kind}/${each.name}`),
    ['Deployment/web'],
  );
  assert.equal(six!.IP?.ipVersion, 2);
  assert.deepEqual(fromHost!.source?.labels, ['reserved:host']);
  assert.deepEqual(toWorld!.destination?.labels, ['reserved:world-ipv4', 'reserved:world']);
  assert.equal(toWorld!.l4?.protocol.case, 'ICMPv4');
  assert.equal(toWorld!.Summary, 'ICMPv4 EchoRequest');
});

test('a pod that is gone keeps its name for what still comes, for a while', () => {
  const scene = createScene();
  scene.tables.addresses.delete(web);
  scene.record(makeEvent({ from: web, to: db, identity: [256, 257] }));
  assert.equal(scene.ring.get(0).source.pod, 'web-1');
  assert.equal(scene.ring.get(0).source.workloadName, 'web');
  scene.tables.addresses.upsert({
    address: web,
    identity: 300,
    kind: 'pod',
    namespace: 'other',
    pod: 'new',
    namedPorts: [],
    ifindex: 109,
    endpointId: 9,
  });
  scene.tables.identities.upsert({ id: 300, labels: ['k8s:app=new'] });
  scene.record(makeEvent({ from: web, to: db, identity: [300, 257] }));
  assert.equal(scene.ring.get(scene.ring.next - 1).source.pod, 'new');
});

test('labels that come after the first flow are in the next', () => {
  const scene = createScene();
  scene.tables.addresses.upsert({
    address: '10.244.0.3',
    identity: 400,
    kind: 'pod',
    namespace: 'shop',
    pod: 'late',
    namedPorts: [],
    ifindex: 103,
    endpointId: 3,
  });
  scene.record(makeEvent({ from: '10.244.0.3', to: world, identity: [400, 9] }));
  scene.tables.identities.upsert({ id: 400, labels: ['k8s:app=late'] });
  scene.record(makeEvent({ from: '10.244.0.3', to: world, identity: [400, 9] }));
  assert.deepEqual(
    scene.rows().map((row) => row.source.labels),
    [[], ['k8s:app=late']],
  );
});

test('what ends for a pod whose address another one has by now is not told of that one', () => {
  const scene = createScene();
  const { addresses: rows, identities } = scene.tables;
  const before = rows.get(db)!;
  identities.upsert([
    { id: 300, labels: ['k8s:app=vault', 'k8s:io.kubernetes.pod.namespace=bank'] },
    { id: 301, labels: ['k8s:app=old', 'k8s:io.kubernetes.pod.namespace=bank'] },
  ]);
  rows.delete(db);
  rows.upsert([{ ...before, namespace: 'bank', pod: 'vault-0', identity: 300, ifindex: 109, endpointId: 9 }]);
  const named = (identity: number) => {
    scene.record(makeEvent({ from: far, to: db, identity: [258, identity], type: EventType.EVENT_END }));
    const { namespace, pod, labels } = scene.rows().at(-1)!.destination;
    return [namespace, pod, labels[0]];
  };
  assert.deepEqual(named(300), ['bank', 'vault-0', 'k8s:app=vault']);
  assert.deepEqual(named(257), ['shop', 'db-0', 'k8s:app=db']);
  assert.deepEqual(named(301), ['bank', 'vault-0', 'k8s:app=old'], 'its labels were others');
  assert.deepEqual(named(999), ['bank', 'vault-0', undefined], 'its labels are on their way');
  scene.now.ms += 11 * 60_000;
  assert.deepEqual(named(257), ['', '', 'k8s:app=db'], 'who it was is forgotten, and that it was another one is not');
});

test('a rule is still named when its policy has gone since', () => {
  const scene = createScene();
  scene.record(makeEvent({ from: far, to: db, cookie: [0, 7] }));
  scene.cookies.delete(7);
  assert.equal(scene.message(scene.ring.get(0)).ingressAllowedBy[0]?.name, 'db-from-web');
});

test('records of another size are counted, not read', () => {
  const scene = createScene();
  scene.recorder.record(new DataView(new ArrayBuffer(64)), 0, 64);
  assert.equal(scene.recorder.malformed, 1);
  assert.equal(scene.ring.next, 0);
});

test('a flow names the Service through which its responder was reached: by the frontend, or by what the socket did', () => {
  const asked: SocketEnds[] = [];
  const web1 = { namespace: 'shop', name: 'web' };
  const scene = createScene(64, {
    byFrontend: (number) => (number === 7 ? web1 : undefined),
    bySocket(ends) {
      asked.push({ ...ends, addresses: ends.addresses.slice() });
      return ends.destinationPort === 5432 ? web1 : undefined;
    },
  });
  const services = () => scene.rows().map((row) => scene.message(row).destinationService?.name);
  scene.record(makeEvent({ from: far, to: db, identity: [258, 257], service: 7 }));
  assert.deepEqual(services(), ['web']);
  assert.equal(asked.length, 0);
  // A pod of this node begins: its socket knows. Both ends are told, and a reader may ask for the Service.
  scene.record(makeEvent({ from: web, to: db, identity: [256, 257] }));
  assert.deepEqual(services(), ['web', 'web', 'web']);
  assert.deepEqual(
    [asked[0]!.destinationPort, asked[0]!.protocol, [...asked[0]!.addresses.subarray(28)]],
    [5432, 6, db.split('.').map(Number)],
  );
  // What goes on, and who comes from elsewhere, is not asked for.
  scene.record(makeEvent({ from: web, to: db, identity: [256, 257], type: EventType.EVENT_ACTIVE }));
  scene.record(makeEvent({ from: far, to: db, identity: [258, 257] }));
  assert.equal(asked.length, 1);
});
