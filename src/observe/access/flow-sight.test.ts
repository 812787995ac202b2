// What comes out of random flows, filters and masks: nothing of a namespace that may not be seen, and exactly what the
// filters say of the flows as they are shown.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, type JsonObject, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { type Any, StructSchema, timestampFromMs } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { type Flow, type FlowFilter, FlowFilterSchema, FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { GetFlowsRequestSchema, GetFlowsResponseSchema } from '../../../proto/gen/observer/observer_pb.js';
import { createFlowSight, hiddenUuids } from './flow-sight.ts';
import { narrowRequest } from './narrow-request.ts';
import type { AccessRights, Redaction } from './rights.ts';

const numRuns = Number(process.env.WEIR_PROPERTY_RUNS ?? 200) * 5;
const uuidOf = hiddenUuids('key');
const rights = (processes = true, ...redactions: Redaction[]): AccessRights =>
  new Map([
    ['mine', { processes, redactions: new Set(redactions) }],
    ['mine-too', { processes: true, redactions: new Set<Redaction>() }],
  ]);

/** Every name in a namespace that is hidden has this in it. */
const secret = 'hush';
type End = NonNullable<MessageInitShape<typeof FlowSchema>['source']>;
const pod = (namespace: string, name: string): End => ({
  ID: 77,
  identity: 300,
  clusterName: 'default',
  namespace,
  podName: `${name}-1`,
  labels: [`k8s:app=${name}`, `k8s:io.kubernetes.pod.namespace=${namespace}`],
  workloads: [{ name, kind: 'Deployment' }],
});
const ends = {
  mine: pod('mine', 'web'),
  too: pod('mine-too', 'api'),
  hidden: pod(`${secret}-ns`, `${secret}-db`),
  /** A namespace of mine by name, and somebody else's. */
  elsewhere: { ...pod('mine', `${secret}-far`), clusterName: secret },
  /** An agent that does not know the pod yet, but its identity. */
  unnamed: { identity: 301, labels: [`k8s:app=${secret}`, `k8s:io.kubernetes.pod.namespace=${secret}-ns`] },
  world: { identity: 9, labels: ['reserved:world-ipv4', `k8s:strange=${secret}`] },
  host: { identity: 1, labels: ['reserved:host'] },
} as const satisfies Record<string, End>;
type Kind = keyof typeof ends;
const isMine = (kind: Kind) => kind === 'mine' || kind === 'too';
const isHidden = (kind: Kind) => kind === 'hidden' || kind === 'elsewhere' || kind === 'unnamed';
const nameOf = (kind: Kind) => (isMine(kind) ? kind : secret);
const policy = (kind: Kind) => ({
  name: `p-${nameOf(kind)}`,
  namespace: isMine(kind) ? ends[kind].namespace : `${secret}-ns`,
  kind: 'NetworkPolicy',
  revision: 4711n,
  labels: [`k8s:io.cilium.k8s.policy.name=p-${nameOf(kind)}`],
});
const processOf = (kind: Kind) => ({
  binary: `/bin/${nameOf(kind)}`,
  arguments: `--of ${nameOf(kind)}`,
  cwd: `/home/${nameOf(kind)}`,
  pid: 5,
});
const struct = (json: JsonObject): Any => ({
  $typeName: 'google.protobuf.Any',
  typeUrl: 'type.googleapis.com/google.protobuf.Struct',
  value: toBinary(StructSchema, structOf(json)),
});
function structOf(json: JsonObject) {
  const value = (each: unknown): never =>
    ({
      $typeName: 'google.protobuf.Value',
      kind:
        typeof each === 'string'
          ? { case: 'stringValue', value: each }
          : typeof each === 'number'
            ? { case: 'numberValue', value: each }
            : Array.isArray(each)
              ? { case: 'listValue', value: { $typeName: 'google.protobuf.ListValue', values: each.map(value) } }
              : { case: 'structValue', value: structOf(each as JsonObject) },
    }) as never;
  const fields = Object.fromEntries(Object.entries(json).map(([name, each]) => [name, value(each)]));
  return { $typeName: 'google.protobuf.Struct' as const, fields };
}

const kinds = fc.constantFrom(...(Object.keys(ends) as Kind[]));
const flows = fc
  .record({
    source: kinds,
    destination: kinds,
    direction: fc.constantFrom(0, 1, 2),
    dns: fc.constantFrom('none', 'query', 'answer'),
    drop: fc.boolean(),
    port: fc.constantFrom(80, 443),
    seq: fc.nat(1_000_000),
  })
  .map(({ source, destination, direction, dns, drop, port, seq }) => {
    const client = dns === 'answer' ? destination : source;
    const query = `${nameOf(client)}.example.`;
    const flow: MessageInitShape<typeof FlowSchema> = {
      uuid: `${seq}`,
      time: timestampFromMs(1_000_000 + seq),
      verdict: drop ? 2 : 1,
      IP: { source: '10.0.0.1', destination: '10.0.0.2', ipVersion: 1, sourceXlated: secret },
      l4: { protocol: { case: 'TCP', value: { sourcePort: 40_000, destinationPort: port, flags: { SYN: true } } } },
      ethernet: { source: secret, destination: secret },
      tunnel: { protocol: 1, IP: { source: secret } },
      interface: { name: secret },
      file: { name: secret },
      traceContext: { parent: { traceId: secret } },
      source: ends[source],
      destination: ends[destination],
      trafficDirection: direction,
      nodeName: isHidden(
        direction === 1 ? destination : direction === 2 ? source : isHidden(source) ? source : destination,
      )
        ? `node-${secret}`
        : 'node1',
      nodeLabels: [secret],
      // What the pod at the other end asked for.
      sourceNames: [`${nameOf(destination)}.asked`],
      destinationNames: [`${nameOf(source)}.asked`],
      eventType: { type: drop ? 1 : 4 },
      sourceService: { name: `svc-${nameOf(source)}`, namespace: ends[source] && isMine(source) ? 'mine' : secret },
      destinationService: { name: `svc-${nameOf(destination)}`, namespace: isMine(destination) ? 'mine' : secret },
      egressAllowedBy: [policy(source)],
      egressDeniedBy: [policy(source)],
      ingressAllowedBy: [policy(destination)],
      ingressDeniedBy: [policy(destination)],
      policyLog: [nameOf(source), nameOf(destination)],
      Summary: `TCP Flags: SYN; sent 1 packets, 74 bytes; staged policies would deny ingress; ${seq} like it not reported; ${secret}`,
      extensions: struct({
        report: 'end',
        packets_sent: 3,
        reports_held_back: seq,
        staged_denied: ['egress', 'ingress'],
        unheard_of: secret,
        source_process: processOf(source),
        destination_process: processOf(destination),
      }),
    };
    if (dns !== 'none') {
      flow.l7 = { type: dns === 'query' ? 1 : 2, record: { case: 'dns', value: { query, ips: ['192.0.2.9'] } } };
      flow.Summary = `DNS Query ${query}`;
    }
    return { flow: create(FlowSchema, flow), source, destination };
  });

const masks = fc.option(
  fc.subarray(['source', 'destination.labels', 'extensions', 'Summary', 'uuid', 'l7.dns', 'egress_allowed_by', 'IP'], {
    minLength: 1,
  }),
  { nil: undefined },
);
const both = (field: string, value: unknown): FlowFilter[] =>
  ['source', 'destination'].map((side) => create(FlowFilterSchema, { [`${side}${field}`]: [value] } as never));
const filters: readonly FlowFilter[] = [
  ...both('Pod', `${secret}-ns/`),
  ...both('Pod', 'mine/'),
  ...both('Label', `app=${secret}-db`),
  ...both('Label', `app!=${secret}-db`),
  ...both('Label', '!app'),
  ...both('Workload', { name: `${secret}-db` }),
  ...both('Service', `${secret}/`),
  ...both('Identity', 300),
  ...both('Fqdn', `${secret}*`),
  ...both('Ip', '10.0.0.1'),
  ...both('Port', '80'),
  create(FlowFilterSchema, { nodeName: [`node-${secret}`] }),
  create(FlowFilterSchema, { verdict: [2], sourcePod: ['mine/web'] }),
  create(FlowFilterSchema, { dnsQuery: [secret] }),
  create(FlowFilterSchema, { uuid: ['5'] }),
  create(FlowFilterSchema, { experimental: { celExpression: [`_flow.source.pod_name.startsWith('${secret}')`] } }),
  create(FlowFilterSchema, { experimental: { celExpression: ["_flow.destination.namespace == 'mine'"] } }),
];
const someFilters = fc.subarray([...filters], { maxLength: 3 });

const respond = (flow: Flow) =>
  toBinary(
    GetFlowsResponseSchema,
    create(GetFlowsResponseSchema, {
      responseTypes: { case: 'flow', value: flow },
      nodeName: flow.nodeName,
      time: flow.time,
    }),
  );

function see(flow: Flow, of: AccessRights, request: MessageInitShape<typeof GetFlowsRequestSchema> = {}) {
  const sight = createFlowSight({ request: create(GetFlowsRequestSchema, request), rights: () => of, uuidOf });
  const bytes = respond(flow);
  const shown = sight.show(bytes, 0, bytes.length);
  const { responseTypes } = shown ? fromBinary(GetFlowsResponseSchema, shown) : { responseTypes: { case: undefined } };
  return { bytes: shown, flow: responseTypes.case === 'flow' ? responseTypes.value : undefined };
}

test('a tenant gets a flow when an end is its own, and no name of what is hidden in any byte', () => {
  fc.assert(
    fc.property(flows, masks, ({ flow, source, destination }, paths) => {
      const { bytes } = see(flow, rights(), { fieldMask: paths && { paths } });
      assert.equal(bytes !== undefined, isMine(source) || isMine(destination));
      if (bytes === undefined) return;
      const text = Buffer.from(bytes).toString('latin1');
      assert.ok(!text.includes(secret), `${source} → ${destination}: ${text}`);
    }),
    { numRuns },
  );
});

test('filters match what is shown and nothing else: by what is left out nobody learns what is hidden', () => {
  fc.assert(
    fc.property(flows, someFilters, someFilters, ({ flow, source, destination }, whitelist, blacklist) => {
      if (!isMine(source) && !isMine(destination)) return;
      // The same flow with another secret: whoever may not see it cannot tell the two apart.
      const swapped = fromBinary(
        FlowSchema,
        Buffer.from(Buffer.from(toBinary(FlowSchema, flow)).toString('latin1').replaceAll(secret, 'loud'), 'latin1'),
      );
      const [one, two] = [flow, swapped].map((each) => see(each, rights(), { whitelist, blacklist }).bytes);
      assert.deepEqual(one && Buffer.from(one), two && Buffer.from(two));
    }),
    { numRuns },
  );
});

test('the nodes are asked for everything that will be shown', () => {
  fc.assert(
    fc.property(flows, someFilters, someFilters, ({ flow }, whitelist, blacklist) => {
      const request = create(GetFlowsRequestSchema, { whitelist, blacklist, fieldMask: { paths: ['uuid'] } });
      const narrow = narrowRequest(request, rights());
      assert.equal(narrow.fieldMask, undefined);
      if (see(flow, rights(), { whitelist, blacklist }).bytes === undefined) return;
      // An agent with no secrets before it: everybody is seen, so that its filters are those of the whole flow.
      const everybody = new Map(
        ['mine', 'mine-too', `${secret}-ns`].map((each) => [
          each,
          { processes: true, redactions: new Set<Redaction>() },
        ]),
      );
      const whole = see(flow, everybody, { whitelist: narrow.whitelist, blacklist: narrow.blacklist });
      assert.notEqual(whole.bytes, undefined, JSON.stringify(narrow.whitelist));
    }),
    { numRuns },
  );
});

const one = (source: Kind, destination: Kind) => {
  const [sample] = fc.sample(
    flows.filter((each) => each.source === source && each.destination === destination && each.flow.l7 === undefined),
    { numRuns: 1, seed: 7 },
  );
  return sample!.flow;
};

test('the other end is reduced to its class and address, and one’s own end is whole', () => {
  const { flow } = see(one('mine', 'hidden'), rights());
  assert.ok(flow);
  assert.deepEqual([flow.source!.podName, flow.source!.labels.length, flow.source!.workloads.length], ['web-1', 2, 1]);
  assert.deepEqual(
    [flow.destination!.identity, flow.destination!.labels, flow.IP!.destination],
    [0, ['reserved:cluster'], '10.0.0.2'],
  );
  assert.deepEqual(
    [flow.egressAllowedBy.map((each) => [each.name, each.revision]), flow.ingressAllowedBy],
    [[['p-mine', 0n]], []],
  );
  assert.equal(flow.Summary, 'TCP Flags: SYN; sent 1 packets, 74 bytes');
  const { fields } = fromBinary(StructSchema, flow.extensions!.value);
  assert.deepEqual(Object.keys(fields).sort(), ['packets_sent', 'report', 'source_process', 'staged_denied']);
  // Whose wish a log is it does not say.
  const untold = see(
    create(FlowSchema, { ...one('mine', 'hidden'), ingressAllowedBy: [], ingressDeniedBy: [] }),
    rights(),
  );
  assert.deepEqual(untold.flow!.policyLog, []);
  const outside = see(one('world', 'mine'), rights()).flow!;
  assert.deepEqual([outside.source!.identity, outside.source!.labels], [9, ['reserved:world-ipv4']]);
});

test('redactions leave out what they say', () => {
  const of = (...redactions: Redaction[]) => see(one('mine', 'hidden'), rights(true, ...redactions)).flow!;
  const process = (flow: Flow) => fromBinary(StructSchema, flow.extensions!.value).fields.source_process?.kind;
  assert.deepEqual(of('labels').source!.labels, []);
  assert.deepEqual([of('addresses-of-others').IP!.source, of('addresses-of-others').IP!.destination], ['10.0.0.1', '']);
  assert.deepEqual(of('dns').destinationNames, []);
  assert.deepEqual(of().destinationNames, ['mine.asked']);
  for (const [flow, keys] of [
    [of(), ['arguments', 'binary', 'cwd', 'pid']],
    [of('arguments'), ['binary', 'pid']],
  ] as const) {
    const kind = process(flow);
    assert.ok(kind?.case === 'structValue');
    assert.deepEqual(Object.keys(kind.value.fields).sort(), keys);
  }
  assert.equal(process(see(one('mine', 'hidden'), rights(false)).flow!), undefined);
});

test('losses are told without numbers and seldom, and uuids do not count', () => {
  let nowMs = 1_000_000;
  const sight = createFlowSight({
    request: create(GetFlowsRequestSchema),
    rights: () => rights(),
    uuidOf,
    nowMs: () => nowMs,
  });
  const lost = toBinary(
    GetFlowsResponseSchema,
    create(GetFlowsResponseSchema, {
      responseTypes: {
        case: 'lostEvents',
        value: { source: 1, numEventsLost: 4711n, cpu: 3, first: timestampFromMs(5) },
      },
      nodeName: 'node1',
    }),
  );
  const shown = fromBinary(GetFlowsResponseSchema, sight.show(lost, 0, lost.length)!);
  assert.deepEqual(
    shown,
    create(GetFlowsResponseSchema, {
      responseTypes: { case: 'lostEvents', value: {} },
      time: timestampFromMs(nowMs),
    }),
  );
  assert.equal(sight.show(lost, 0, lost.length), undefined);
  nowMs += 60_000;
  assert.notEqual(sight.show(lost, 0, lost.length), undefined);
  assert.match(uuidOf('a'), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(uuidOf('a'), uuidOf('b'));
  assert.notEqual(uuidOf('a'), hiddenUuids('other')('a'));
});

test('what cannot be honoured is refused by its name', () => {
  const refused = (request: MessageInitShape<typeof GetFlowsRequestSchema>, why: RegExp) =>
    assert.throws(() => see(one('mine', 'hidden'), rights(), request), why);
  refused({ whitelist: [{ nodeLabels: ['a=b'] }] }, /node_labels/);
  refused({ blacklist: [{ sourceIp: ['x'] }] }, /source_ip/);
  refused({ fieldMask: { paths: ['nothing'] } }, /field_mask/);
});
